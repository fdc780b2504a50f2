package coeval.flink;

import java.util.Set;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.EncodingFormat;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.SerializationFormatFactory;
import org.apache.flink.table.types.DataType;

/**
 * The format {@code first-column}: of a row, the bytes of its first column, a text.
 *
 * <p>A changelog message is keyed by the entity alone, while what it updates is known by entity and tile. With this as
 * key format an upsert sink may declare both as its primary key: Flink then sees that an update replaces its
 * predecessor, and does not take that back first with an empty message of its own.
 */
public final class FirstColumnFormat implements SerializationFormatFactory {
    @Override
    public String factoryIdentifier() {
        return "first-column";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of();
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public EncodingFormat<SerializationSchema<RowData>> createEncodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        return new Encoding();
    }

    private static final class Encoding implements EncodingFormat<SerializationSchema<RowData>> {
        @Override
        public SerializationSchema<RowData> createRuntimeEncoder(DynamicTableSink.Context context, DataType type) {
            return new FirstColumn();
        }

        @Override
        public ChangelogMode getChangelogMode() {
            return ChangelogMode.insertOnly();
        }
    }

    private static final class FirstColumn implements SerializationSchema<RowData> {
        private static final long serialVersionUID = 1;

        @Override
        public byte[] serialize(RowData row) {
            return row.getString(0).toBytes();
        }
    }
}
