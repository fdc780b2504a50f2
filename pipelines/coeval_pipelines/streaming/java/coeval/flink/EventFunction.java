package coeval.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.SpecializedFunction;
import org.apache.flink.table.functions.TableFunction;
import org.apache.flink.table.functions.UserDefinedFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;

/**
 * Judges a raw record of the log and makes an event of it: one row per record, so that every record can be accounted for.
 *
 * <p>Arguments: value, key, headers, timestamp of the record, and what a source declares, as a constant JSON text
 * ({@code source, event_id, event_ts, max_future_skew, fields: [{name, kind, precision, scale, nullable, origin,
 * used}]}; durations in microseconds). Columns: {@code reason} (the text of {@code Reason}; null: it is good), {@code
 * event_identity}, {@code declared_ts}, {@code event_ts} (the effective one), {@code available_at} (microseconds since
 * the epoch, UTC), then the physical value of each used field as {@code f:NAME}. Of a reject all but reason and
 * available_at are null.
 *
 * <p>The rules are those of {@code parse_record} of {@code coeval.spec.records}, fields in the declared order.
 */
public final class EventFunction extends TableFunction<RowData> implements SpecializedFunction {
    private static final long serialVersionUID = 1;
    private static final String NULL_REQUIRED = "null_required";
    private static final String BAD_LITERAL = "bad_literal";
    private static final String FUTURE_DATED = "future_dated";
    private static final int ENVELOPE = 5;
    private static final int NOT_USED = -1;
    private static final int LATENESS_SAMPLES = 2000;

    /** What the source declares; null until the planner has made a function of a certain source of this one. */
    private final String declared;

    private transient Column[] columns;
    private transient JsonRecord document;
    private transient JsonRecord.Text outside;
    private transient int identity;
    private transient int eventTime;
    private transient long maxFutureSkew;
    private transient int width;
    private transient Counter read;
    private transient Map<String, Counter> rejected;
    private transient Histogram lateness;

    /** A declared field. */
    private static final class Column {
        String name;
        Literal literal;
        boolean nullable;
        boolean isKey;
        /** The name of the header that it stands in; null: it does not stand in one. */
        StringData header;
        /** Its place in the JSON record. */
        int place;
        /** Its place in the row. */
        int target = NOT_USED;
    }

    public EventFunction() {
        this(null);
    }

    private EventFunction(String declared) {
        this.declared = declared;
    }

    @Override
    public UserDefinedFunction specialize(SpecializedContext context) {
        return new EventFunction(constant(context.getCallContext()));
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory factory) {
        return TypeInference.newBuilder()
                .inputTypeStrategy(
                        InputTypeStrategies.sequence(
                                InputTypeStrategies.explicit(DataTypes.BYTES()),
                                InputTypeStrategies.explicit(DataTypes.BYTES()),
                                InputTypeStrategies.explicit(
                                        DataTypes.MAP(DataTypes.STRING(), DataTypes.BYTES()).bridgedTo(MapData.class)),
                                InputTypeStrategies.explicit(
                                        DataTypes.TIMESTAMP_LTZ(3).bridgedTo(TimestampData.class)),
                                InputTypeStrategies.explicit(DataTypes.STRING().bridgedTo(StringData.class))))
                .outputTypeStrategy(call -> Optional.of(rowType(constant(call))))
                .build();
    }

    private static String constant(CallContext call) {
        return call.getArgumentValue(4, String.class).orElse("{}");
    }

    private static DataType rowType(String declared) {
        List<DataTypes.Field> fields = new ArrayList<>();
        fields.add(DataTypes.FIELD("reason", DataTypes.STRING()));
        fields.add(DataTypes.FIELD("event_identity", DataTypes.STRING()));
        for (String name : new String[] {"declared_ts", "event_ts", "available_at"}) {
            fields.add(DataTypes.FIELD(name, DataTypes.BIGINT()));
        }
        for (Column column : columnsOf(parsed(declared))) {
            if (column.target != NOT_USED) {
                fields.add(DataTypes.FIELD("f:" + column.name, sqlType(column.literal)));
            }
        }
        return DataTypes.ROW(fields.toArray(new DataTypes.Field[0])).bridgedTo(RowData.class);
    }

    private static DataType sqlType(Literal literal) {
        if (literal.isString()) {
            return DataTypes.STRING();
        }
        if (literal.isReal()) {
            return DataTypes.DOUBLE();
        }
        return literal.isWide() ? DataTypes.DECIMAL(38, 0) : DataTypes.BIGINT();
    }

    @Override
    public void open(FunctionContext context) {
        JsonNode source = parsed(declared);
        columns = columnsOf(source);
        width = ENVELOPE;
        List<String> names = new ArrayList<>();
        for (int i = 0; i < columns.length; i++) {
            Column column = columns[i];
            width += column.target == NOT_USED ? 0 : 1;
            identity = column.name.equals(source.get("event_id").asText()) ? i : identity;
            eventTime = column.name.equals(source.get("event_ts").asText()) ? i : eventTime;
            if (!column.isKey && column.header == null) {
                column.place = names.size();
                names.add(column.name);
            }
        }
        document = new JsonRecord(names.toArray(new String[0]));
        outside = new JsonRecord.Text();
        maxFutureSkew = source.get("max_future_skew").asLong();
        measure(context.getMetricGroup().addGroup("coeval").addGroup("source", source.get("source").asText()));
    }

    private void measure(MetricGroup group) {
        read = group.counter("read");
        rejected = new HashMap<>();
        String[] reasons = {
            JsonRecord.UNPARSEABLE, JsonRecord.DUPLICATE_FIELD, NULL_REQUIRED, BAD_LITERAL, FUTURE_DATED
        };
        for (String reason : reasons) {
            rejected.put(reason, group.addGroup("reason", reason).counter("rejected"));
        }
        lateness = group.histogram("lateness_ms", new DescriptiveStatisticsHistogram(LATENESS_SAMPLES));
    }

    public void eval(byte[] value, byte[] key, MapData headers, TimestampData timestamp, StringData declared) {
        long availableAt = timestamp.getMillisecond() * 1000;
        GenericRowData row = new GenericRowData(width);
        String reason = judge(row, value, key, headers, availableAt);
        read.inc();
        if (reason == null) {
            lateness.update((availableAt - row.getLong(2)) / 1000);
        } else {
            rejected.get(reason).inc();
            row = new GenericRowData(width);
            row.setField(0, StringData.fromString(reason));
        }
        row.setField(4, availableAt);
        collect(row);
    }

    /** Fills a row from a record; gives what is wrong with it, or null. */
    private String judge(GenericRowData row, byte[] value, byte[] key, MapData headers, long availableAt) {
        String wrong = document.read(value);
        for (int i = 0; wrong == null && i < columns.length; i++) {
            Column column = columns[i];
            JsonRecord.Text text = textOf(column, key, headers);
            if (text.absent) {
                wrong = column.nullable ? null : NULL_REQUIRED;
            } else if (text.unfit || !column.literal.read(text.bytes, text.start, text.end)) {
                wrong = BAD_LITERAL;
            } else {
                fill(row, i, text);
            }
        }
        if (wrong != null) {
            return wrong;
        }
        long declaredTs = row.getLong(2);
        row.setField(3, Math.min(declaredTs, availableAt));
        return declaredTs > availableAt + maxFutureSkew ? FUTURE_DATED : null;
    }

    private JsonRecord.Text textOf(Column column, byte[] key, MapData headers) {
        if (column.isKey) {
            outside.setWhole(key);
        } else if (column.header != null) {
            outside.setWhole(headerOf(headers, column.header));
        } else {
            return document.value(column.place);
        }
        return outside;
    }

    /** Flink's map holds the last header of a name. */
    private static byte[] headerOf(MapData headers, StringData name) {
        if (headers == null) {
            return null;
        }
        ArrayData names = headers.keyArray();
        for (int i = 0; i < headers.size(); i++) {
            if (name.equals(names.getString(i))) {
                return headers.valueArray().isNullAt(i) ? null : headers.valueArray().getBinary(i);
            }
        }
        return null;
    }

    private void fill(GenericRowData row, int index, JsonRecord.Text text) {
        Column column = columns[index];
        if (column.target == NOT_USED && index != identity && index != eventTime) {
            return;
        }
        Object value = physical(column.literal, text);
        if (index == identity) {
            row.setField(1, column.literal.isString() ? value : StringData.fromString(value.toString()));
        }
        if (index == eventTime) {
            row.setField(2, value);
        }
        if (column.target != NOT_USED) {
            row.setField(column.target, value);
        }
    }

    private static Object physical(Literal literal, JsonRecord.Text text) {
        if (literal.isString()) {
            return StringData.fromBytes(text.bytes, text.start, text.end - text.start);
        }
        if (literal.isReal()) {
            return literal.real;
        }
        return literal.isWide() ? DecimalData.fromBigDecimal(new BigDecimal(literal.wide), 38, 0) : literal.whole;
    }

    private static JsonNode parsed(String declared) {
        try {
            return new ObjectMapper().readTree(declared);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static Column[] columnsOf(JsonNode source) {
        List<Column> columns = new ArrayList<>();
        int target = ENVELOPE;
        for (JsonNode field : source.path("fields")) {
            Column column = new Column();
            column.name = field.get("name").asText();
            column.literal =
                    new Literal(
                            field.get("kind").asText(), field.get("precision").asInt(), field.get("scale").asInt());
            column.nullable = field.get("nullable").asBoolean();
            String origin = field.get("origin").asText();
            column.isKey = origin.equals("key");
            if (origin.startsWith("header:")) {
                column.header = StringData.fromString(origin.substring("header:".length()));
            }
            if (field.get("used").asBoolean()) {
                column.target = target++;
            }
            columns.add(column);
        }
        return columns.toArray(new Column[0]);
    }
}
