/* grpc-java with generated stubs: every kind of call, and each answer beside HTTP's. */
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import inference.GRPCInferenceServiceGrpc;
import inference.GrpcService.*;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

class Grpc {
    static final String MODEL = "fashion-mnist";

    final ManagedChannel channel;
    final GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub stub;
    final float[] image, expected;

    Grpc(String example) {
        channel = NettyChannelBuilder.forTarget(System.getenv("MOED_GRPC")).usePlaintext().build();
        stub = GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadlineAfter(2, TimeUnit.MINUTES);
        image = numbers(example, "image");
        expected = numbers(example, "expected");
    }

    static void check(boolean ok, Object what) {
        if (!ok)
            throw new AssertionError(what);
    }

    static float[] numbers(String json, String key) {
        String[] parts = json.replaceAll("(?s).*\"" + key + "\": ?\\[+([^\\]]*)\\].*", "$1").split(",");
        float[] values = new float[parts.length];
        for (int i = 0; i < parts.length; i++)
            values[i] = Float.parseFloat(parts[i].trim());
        return values;
    }

    /* The answer is what HTTP says in JSON, below KEY if that is not empty. */
    static void same(Message answer, String method, String path, String key) throws Exception {
        var http = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(System.getenv("MOED_HTTP") + path))
            .method(method, HttpRequest.BodyPublishers.noBody()).build(), BodyHandlers.ofString());
        check(http.statusCode() == 200, path + " " + http.body());
        var other = answer.newBuilderForType();
        JsonFormat.parser().ignoringUnknownFields()
            .merge(key.isEmpty() ? http.body() : "{\"" + key + "\":" + http.body() + "}", other);
        check(other.build().equals(answer), "over gRPC: " + answer + "\nover HTTP: " + other);
    }

    ModelInferRequest.Builder request(boolean raw) {
        var input = ModelInferRequest.InferInputTensor.newBuilder().setName("image").setDatatype("FP32")
            .addShape(1).addShape(1).addShape(28).addShape(28);
        var message = ModelInferRequest.newBuilder().setModelName(MODEL).setId("from-java");
        if (raw) {
            ByteBuffer content = ByteBuffer.allocate(4 * image.length).order(ByteOrder.LITTLE_ENDIAN);
            content.asFloatBuffer().put(image);
            message.addRawInputContents(ByteString.copyFrom(content));
        } else {
            var contents = InferTensorContents.newBuilder();
            for (float value : image)
                contents.addFp32Contents(value);
            input.setContents(contents);
        }
        return message.addInputs(input);
    }

    void compare(ModelInferResponse answer) {
        check(answer.getId().equals("from-java") && answer.getModelName().equals(MODEL) && answer.getOutputsCount() == 1, answer);
        var got = answer.getRawOutputContents(0).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        check(got.remaining() == expected.length, answer);
        for (float want : expected)
            check(Math.abs(got.get() - want) < 1e-6, answer);
    }

    void manyAtOnce() {
        var waiting = GRPCInferenceServiceGrpc.newFutureStub(channel);
        IntStream.range(0, 50).mapToObj(i -> waiting.modelInfer(request(i % 2 == 0).build())).toList().forEach(answer -> {
            try {
                compare(answer.get(1, TimeUnit.MINUTES));
            } catch (Exception error) {
                throw new AssertionError(error);
            }
        });
    }

    void fails(Status.Code code, ModelInferRequest request) {
        try {
            check(false, stub.modelInfer(request));
        } catch (StatusRuntimeException error) {
            check(error.getStatus().getCode() == code && error.getStatus().getDescription() != null, error);
        }
    }

    void repository() throws Exception {
        same(stub.repositoryIndex(RepositoryIndexRequest.getDefaultInstance()), "POST", "/v2/repository/index", "models");
        var mnist = ModelReadyRequest.newBuilder().setName("mnist").build();
        stub.repositoryModelUnload(RepositoryModelUnloadRequest.newBuilder().setModelName("mnist").build());
        check(!stub.modelReady(mnist).getReady(), "mnist is still ready");
        stub.repositoryModelLoad(RepositoryModelLoadRequest.newBuilder().setModelName("mnist").build());
        check(stub.modelReady(mnist).getReady(), "mnist is not ready");
    }

    void all() throws Exception {
        check(stub.serverLive(ServerLiveRequest.getDefaultInstance()).getLive(), "not live");
        check(stub.serverReady(ServerReadyRequest.getDefaultInstance()).getReady(), "not ready");
        var server = stub.serverMetadata(ServerMetadataRequest.getDefaultInstance());
        check(server.getName().equals("moed") && !server.getVersion().isEmpty() && server.getExtensionsCount() > 0, server);
        String path = "/v2/models/" + MODEL;
        same(stub.modelMetadata(ModelMetadataRequest.newBuilder().setName(MODEL).build()), "GET", path, "");
        same(stub.modelConfig(ModelConfigRequest.newBuilder().setName(MODEL).build()), "GET", path + "/config", "config");
        compare(stub.modelInfer(request(true).build()));
        compare(stub.modelInfer(request(false).build()));
        manyAtOnce();
        fails(Status.Code.NOT_FOUND, request(true).setModelName("nobody").build());
        fails(Status.Code.INVALID_ARGUMENT, request(true).setRawInputContents(0, ByteString.copyFrom(new byte[8])).build());
        same(stub.modelStatistics(ModelStatisticsRequest.newBuilder().setName(MODEL).build()), "GET", path + "/stats", "");
        repository();
    }

    public static void main(String[] arguments) throws Exception {
        var client = new Grpc(Files.readString(Path.of(System.getenv("MOED_EXPECTED"))));
        client.all();
        client.channel.shutdown();
        System.out.println(io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder.class.getPackage().getImplementationVersion() + "|");
    }
}
