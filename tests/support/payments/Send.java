import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.StringReader;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends records from standard input to Kafka and says how many were taken. Input, big-endian: the client's properties
 * and the topics (one a line) as texts of a given length, then records: topic (byte), partition (int), timestamp in
 * milliseconds (long), lengths of key and value (ints), key, value.
 */
public final class Send {
    public static void main(String[] arguments) throws IOException {
        DataInputStream input = new DataInputStream(new BufferedInputStream(System.in, 1 << 20));
        Properties properties = new Properties();
        properties.load(new StringReader(new String(bytes(input, input.readInt()), "UTF-8")));
        String[] topics = new String(bytes(input, input.readInt()), "UTF-8").split("\n", -1);
        AtomicReference<Exception> failure = new AtomicReference<>();
        ByteArraySerializer plain = new ByteArraySerializer();
        long sent = 0;
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties, plain, plain)) {
            for (String topic : topics) {
                if (!topic.isEmpty()) {
                    producer.partitionsFor(topic);
                }
            }
            System.out.println("ready");
            for (int topic = input.read(); topic >= 0 && failure.get() == null; topic = input.read(), sent++) {
                int partition = input.readInt();
                long timestamp = input.readLong();
                int keyLength = input.readInt();
                int valueLength = input.readInt();
                byte[] key = bytes(input, keyLength);
                byte[] value = bytes(input, valueLength);
                producer.send(new ProducerRecord<>(topics[topic], partition, timestamp, key, value), (done, error) -> {
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
            }
        }
        if (failure.get() != null) {
            System.err.println(failure.get());
            System.exit(1);
        }
        System.out.println(sent);
    }

    private static byte[] bytes(DataInputStream input, int length) throws IOException {
        byte[] found = new byte[length];
        input.readFully(found);
        return found;
    }
}
