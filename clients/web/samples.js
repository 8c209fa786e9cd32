// Things to classify, drawn when they are asked for: the page carries no data set.

function polygon(context, points, grey = 200) {
  context.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.fill();
}

const CLOTHES = {
  "T-shirt": (c) => polygon(c, [[10, 3], [18, 3], [26, 8], [23, 13], [20, 11], [20, 25], [8, 25], [8, 11], [5, 13], [2, 8]]),
  "trouser": (c) => polygon(c, [[9, 2], [19, 2], [20, 26], [16, 26], [14, 9], [12, 26], [8, 26]]),
  "dress": (c) => polygon(c, [[11, 2], [17, 2], [17, 10], [20, 26], [8, 26], [11, 10]]),
  "bag": (c) => { polygon(c, [[4, 10], [24, 10], [25, 25], [3, 25]]); c.strokeStyle = "rgb(170, 170, 170)"; c.lineWidth = 2;
    c.beginPath(); c.arc(14, 11, 6, Math.PI, 0); c.stroke(); },
  "ankle boot": (c) => polygon(c, [[14, 4], [23, 5], [23, 15], [24, 23], [3, 23], [3, 19], [10, 15], [14, 11]]),
  "sneaker": (c) => polygon(c, [[2, 17], [10, 13], [14, 10], [20, 13], [26, 13], [26, 20], [2, 20]], 180),
};

function digit(character) {
  return (context) => {
    context.fillStyle = "white";
    context.font = "bold 24px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(character, 14, 15);
  };
}

export const samples = {...CLOTHES, ...Object.fromEntries([..."0123456789"].map((c) => [`digit ${c}`, digit(c)]))};
