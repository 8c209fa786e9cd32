// Go's net/http: kept-alive connections, bodies of known and unknown length, binary tensors, a stream, a cancelled
// request.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

type example struct {
	Image    []float32 `json:"image"`
	Expected []float32 `json:"expected"`
}

var base = os.Getenv("MOED_HTTP")
var transport = &http.Transport{MaxIdleConnsPerHost: 8}
var client = &http.Client{Transport: transport}

func check(ok bool, what ...any) {
	if !ok {
		fmt.Fprintln(os.Stderr, what...)
		os.Exit(1)
	}
}

func post(path string, header http.Header, body io.Reader) (*http.Response, []byte) {
	request, err := http.NewRequest("POST", base+path, body)
	check(err == nil, err)
	if header != nil {
		request.Header = header
	}
	response, err := client.Do(request)
	check(err == nil, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	check(err == nil, err)
	return response, answer
}

func equal(got, want []float32) bool {
	for i := range want {
		if i >= len(got) || math.Abs(float64(got[i]-want[i])) > 1e-6 {
			return false
		}
	}
	return len(got) == len(want)
}

func v1(e example, body io.Reader) {
	response, answer := post("/v1/models/fashion-mnist:predict", nil, body)
	var read struct{ Predictions [][]float32 }
	check(response.StatusCode == 200 && json.Unmarshal(answer, &read) == nil, response.Status, string(answer))
	check(equal(read.Predictions[0], e.Expected), read)
}

func v2(e example) {
	head := []byte(`{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,28,28],"parameters":{"binary_data_size":3136}}],` +
		`"parameters":{"binary_data_output":true}}`)
	var body bytes.Buffer
	body.Write(head)
	check(binary.Write(&body, binary.LittleEndian, e.Image) == nil)
	response, answer := post("/v2/models/fashion-mnist/infer",
		http.Header{"Inference-Header-Content-Length": {strconv.Itoa(len(head))}}, &body)
	check(response.StatusCode == 200, response.Status, string(answer))
	length, _ := strconv.Atoi(response.Header.Get("Inference-Header-Content-Length"))
	got := make([]float32, 10)
	check(binary.Read(bytes.NewReader(answer[length:]), binary.LittleEndian, got) == nil && equal(got, e.Expected), got)
}

// All events of a stream, or the first of a request that is then cancelled.
func stream(cancelled bool) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	body := `{"model":"tiny-lm","prompt":"Emma was","max_tokens":100,"ignore_eos":true,"stream":true}`
	request, _ := http.NewRequestWithContext(ctx, "POST", base+"/v1/completions", strings.NewReader(body))
	response, err := client.Do(request)
	check(err == nil && response.StatusCode == 200, err)
	defer response.Body.Close()
	events := 0
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			events++
		}
		if cancelled && events > 0 {
			return events
		}
	}
	return events
}

func main() {
	var e example
	file, err := os.ReadFile(os.Getenv("MOED_EXPECTED"))
	check(err == nil && json.Unmarshal(file, &e) == nil, err)
	body, _ := json.Marshal(map[string]any{"instances": [][]float32{e.Image}, "routing": true})
	v1(e, bytes.NewReader(body))
	v1(e, io.MultiReader(bytes.NewReader(body))) // of unknown length: chunked
	v2(e)
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func() { defer all.Done(); v1(e, bytes.NewReader(body)) }()
	}
	all.Wait()
	check(stream(false) >= 100, "the stream is short")
	stream(true)
	response, answer := post("/v1/models/nobody:predict", nil, bytes.NewReader(body))
	check(response.StatusCode == 404 && bytes.HasPrefix(answer, []byte(`{"error":`)), string(answer))
	response, err = client.Head(base + "/v2/health/ready")
	check(err == nil && response.StatusCode == 200, err)
	fmt.Printf("%s|V1 with known length and chunked, 50 at once on kept-alive connections, V2 with binary tensors, gzip, a stream, "+
		"a cancelled one, an error, HEAD\n", runtime.Version())
}
