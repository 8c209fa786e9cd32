/* java.net.http.HttpClient: its offer to upgrade to HTTP/2, many requests at once, binary tensors, a stream. */
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.IntStream;

class Http {
    static final String BASE = System.getenv("MOED_HTTP");
    static final String PREDICT = "/v1/models/fashion-mnist:predict";

    static void check(boolean ok, Object what) {
        if (!ok)
            throw new AssertionError(what);
    }

    static HttpRequest post(String path, String body) {
        return HttpRequest.newBuilder(URI.create(BASE + path)).POST(HttpRequest.BodyPublishers.ofString(body)).build();
    }

    static float[] numbers(String json, String key) {
        String[] parts = json.replaceAll("(?s).*\"" + key + "\": ?\\[+([^\\]]*)\\].*", "$1").split(",");
        float[] values = new float[parts.length];
        for (int i = 0; i < parts.length; i++)
            values[i] = Float.parseFloat(parts[i].trim());
        return values;
    }

    static void same(float[] got, float[] want) {
        check(got.length == want.length, got.length);
        for (int i = 0; i < want.length; i++)
            check(Math.abs(got[i] - want[i]) < 1e-6, got[i] + " " + want[i]);
    }

    static void binary(HttpClient client, float[] image, float[] expected) throws Exception {
        byte[] head = ("{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,28,28],\"parameters\":"
            + "{\"binary_data_size\":3136}}],\"parameters\":{\"binary_data_output\":true}}").getBytes();
        ByteBuffer body = ByteBuffer.allocate(head.length + 4 * image.length).order(ByteOrder.LITTLE_ENDIAN).put(head);
        for (float value : image)
            body.putFloat(value);
        var answer = client.send(HttpRequest.newBuilder(URI.create(BASE + "/v2/models/fashion-mnist/infer"))
            .header("Inference-Header-Content-Length", "" + head.length)
            .POST(HttpRequest.BodyPublishers.ofByteArray(body.array())).build(), BodyHandlers.ofByteArray());
        check(answer.statusCode() == 200, new String(answer.body()));
        int begin = Integer.parseInt(answer.headers().firstValue("Inference-Header-Content-Length").get());
        float[] got = new float[expected.length];
        ByteBuffer.wrap(answer.body(), begin, 4 * got.length).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(got);
        same(got, expected);
    }

    static void all(HttpClient client, String example) throws Exception {
        float[] image = numbers(example, "image"), expected = numbers(example, "expected");
        String instances = example.replaceAll("(?s).*\"image\": ?(\\[[^\\]]*\\]).*", "{\"instances\":[$1],\"routing\":true}");
        IntStream.range(0, 50).mapToObj(i -> client.sendAsync(post(PREDICT, instances), BodyHandlers.ofString())).toList()
            .forEach(answer -> {
                check(answer.join().statusCode() == 200, answer.join().body());
                same(numbers(answer.join().body(), "predictions"), expected);
            });
        binary(client, image, expected);
        var events = client.send(post("/v1/completions", "{\"model\":\"tiny-lm\",\"prompt\":\"Emma was\",\"max_tokens\":20,"
            + "\"stream\":true}"), BodyHandlers.ofLines());
        check(events.body().filter(line -> line.startsWith("data: ")).count() > 2, "the stream is short");
        var error = client.send(post("/v1/models/nobody:predict", instances), BodyHandlers.ofString());
        check(error.statusCode() == 404 && error.body().startsWith("{\"error\":"), error.body());
    }

    public static void main(String[] arguments) throws Exception {
        String example = Files.readString(Path.of(System.getenv("MOED_EXPECTED")));
        all(HttpClient.newHttpClient(), example);
        all(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build(), example);
        System.out.println(System.getProperty("java.version") + "|with and without its offer of HTTP/2: V1, 50 at once, "
            + "V2 with binary tensors, a stream, an error");
    }
}
