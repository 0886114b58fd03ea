import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.stream.Stream;

/** Asks for a stream and prints the JSON of each chunk as it comes: java StreamReader.java BASE_URL KEY BODY */
class StreamReader {
    public static void main(String[] words) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(words[0] + "/chat/completions"))
            .header("Authorization", "Bearer " + words[1])
            .header("Content-Type", "application/json")
            .timeout(Duration.ofSeconds(60)) // until the head of the answer
            .POST(HttpRequest.BodyPublishers.ofString(words[2])) // UTF-8
            .build();
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        HttpResponse<Stream<String>> answer = client.send(request, BodyHandlers.ofLines()); // UTF-8 by its content type
        if (answer.statusCode() != 200) {
            answer.body().forEach(System.err::println);
            System.exit(1);
        }
        try (Stream<String> lines = answer.body()) { // closing it early ends the upstream's work too
            boolean isWhole = lines.filter(line -> line.startsWith("data: ")) // the others are comments and blank
                .map(line -> line.substring(6))
                .peek(out::println)
                .anyMatch("[DONE]"::equals);
            if (!isWhole) {
                System.err.println("The answer broke off.");
                System.exit(1);
            }
        }
    }
}
