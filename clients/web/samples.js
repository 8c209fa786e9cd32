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
  "ankle boot": (c) => polygon(c, [[14, 3], [24, 3], [25, 24], [2, 24], [2, 19], [8, 16], [13, 11]]),
  "sneaker": (c) => polygon(c, [[2, 17], [10, 13], [14, 10], [20, 13], [26, 13], [26, 20], [2, 20]], 180),
};

// As a pen would write them: print is far from what models of handwriting know.
const STROKES = [
  "M14 5 C7 5 7 23 14 23 C21 23 21 5 14 5",
  "M15 5 L13 23",
  "M9 9 C9 4 19 4 19 9 C19 14 10 18 9 22 L20 22",
  "M9 7 C12 4 19 5 18 9 C18 12 15 13 13 13 C17 13 20 15 19 19 C18 23 11 24 8 21",
  "M9 6 L8 14 L19 14 M19 6 L18 23",
  "M19 6 L11 6 L10 13 C14 11 20 13 19 18 C18 23 11 24 8 21",
  "M17 5 C11 8 8 15 9 19 C10 24 18 24 18 18 C18 14 11 14 9 18",
  "M8 7 L19 7 L13 23",
  "M14 13 C8 10 10 5 14 5 C18 5 20 10 14 13 C8 16 9 23 14 23 C19 23 20 16 14 13",
  "M18 10 C17 4 9 5 9 10 C9 15 17 15 18 10 L16 23",
];

function digit(strokes) {
  return (context) => {
    context.strokeStyle = "white";
    context.lineWidth = 2.4;
    context.lineCap = context.lineJoin = "round";
    context.stroke(new Path2D(strokes));
  };
}

export const samples = {...CLOTHES, ...Object.fromEntries(STROKES.map((strokes, i) => [`digit ${i}`, digit(strokes)]))};
