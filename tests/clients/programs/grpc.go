// grpc-go with generated stubs: every kind of call, and each answer beside HTTP's.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "clients/inference"
)

const model = "fashion-mnist"

var ctx, cancel = context.WithTimeout(context.Background(), 2*time.Minute)

type example struct {
	Image    []float32 `json:"image"`
	Expected []float32 `json:"expected"`
}

func check(ok bool, what ...any) {
	if !ok {
		fmt.Fprintln(os.Stderr, what...)
		os.Exit(1)
	}
}

// must gives the answer of a call, or ends the program with what it failed with.
func must[T any](answer T, err error) T {
	check(err == nil, err)
	return answer
}

// same: the answer is what HTTP says in JSON, below KEY if that is not empty.
func same(answer proto.Message, method, path, key string) {
	request := must(http.NewRequest(method, os.Getenv("MOED_HTTP")+path, nil))
	response := must(http.DefaultClient.Do(request))
	text := must(io.ReadAll(response.Body))
	response.Body.Close()
	check(response.StatusCode == 200, path, response.Status, string(text))
	if key != "" {
		text = []byte(`{"` + key + `":` + string(text) + `}`)
	}
	other := answer.ProtoReflect().New().Interface()
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, other)
	check(err == nil && proto.Equal(answer, other), err, "over gRPC:", answer, "over HTTP:", other)
}

func request(e example, raw bool) *pb.ModelInferRequest {
	input := &pb.ModelInferRequest_InferInputTensor{Name: "image", Datatype: "FP32", Shape: []int64{1, 1, 28, 28}}
	message := &pb.ModelInferRequest{ModelName: model, Id: "from-go", Inputs: []*pb.ModelInferRequest_InferInputTensor{input}}
	if raw {
		var content bytes.Buffer
		check(binary.Write(&content, binary.LittleEndian, e.Image) == nil)
		message.RawInputContents = [][]byte{content.Bytes()}
	} else {
		input.Contents = &pb.InferTensorContents{Fp32Contents: e.Image}
	}
	return message
}

func infer(client pb.GRPCInferenceServiceClient, e example, raw bool) {
	answer := must(client.ModelInfer(ctx, request(e, raw)))
	check(answer.Id == "from-go" && answer.ModelName == model && len(answer.Outputs) == 1, answer)
	got := make([]float32, len(e.Expected))
	check(binary.Read(bytes.NewReader(answer.RawOutputContents[0]), binary.LittleEndian, got) == nil, answer)
	for i, want := range e.Expected {
		check(math.Abs(float64(got[i]-want)) < 1e-6, got, e.Expected)
	}
}

func errors(client pb.GRPCInferenceServiceClient, e example) {
	message := request(e, true)
	message.ModelName = "nobody"
	_, err := client.ModelInfer(ctx, message)
	check(status.Code(err) == codes.NotFound && strings.Contains(err.Error(), "nobody"), err)
	message = request(e, true)
	message.RawInputContents[0] = message.RawInputContents[0][4:]
	_, err = client.ModelInfer(ctx, message)
	check(status.Code(err) == codes.InvalidArgument, err)
}

func repository(client pb.GRPCInferenceServiceClient) {
	same(must(client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})), "POST", "/v2/repository/index", "models")
	must(client.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "mnist"}))
	check(!must(client.ModelReady(ctx, &pb.ModelReadyRequest{Name: "mnist"})).Ready, "mnist is still ready")
	must(client.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "mnist"}))
	check(must(client.ModelReady(ctx, &pb.ModelReadyRequest{Name: "mnist"})).Ready, "mnist is not ready")
}

func main() {
	defer cancel()
	var e example
	check(json.Unmarshal(must(os.ReadFile(os.Getenv("MOED_EXPECTED"))), &e) == nil, "no example")
	connection := must(grpc.NewClient(os.Getenv("MOED_GRPC"), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer connection.Close()
	client := pb.NewGRPCInferenceServiceClient(connection)
	check(must(client.ServerLive(ctx, &pb.ServerLiveRequest{})).Live, "not live")
	check(must(client.ServerReady(ctx, &pb.ServerReadyRequest{})).Ready, "not ready")
	health := must(grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{}))
	check(health.Status == grpc_health_v1.HealthCheckResponse_SERVING, health)
	server := must(client.ServerMetadata(ctx, &pb.ServerMetadataRequest{}))
	check(server.Name == "moed" && server.Version != "" && len(server.Extensions) > 0, server)
	same(must(client.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: model})), "GET", "/v2/models/"+model, "")
	same(must(client.ModelConfig(ctx, &pb.ModelConfigRequest{Name: model})), "GET", "/v2/models/"+model+"/config", "config")
	infer(client, e, true)
	infer(client, e, false)
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func() { defer all.Done(); infer(client, e, i%2 == 0) }()
	}
	all.Wait()
	errors(client, e)
	same(must(client.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: model})), "GET", "/v2/models/"+model+"/stats", "")
	repository(client)
	fmt.Println(grpc.Version + "|")
}
