package coeval.flink;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * Reads one JSON object in one pass over its bytes and notes where the values of known names stand. It judges as
 * {@code parse_record} of {@code coeval.spec.records} does: the whole of it UTF-8 first; then, from left to right, a name
 * that stands twice is seen when its object ends, anything that is no JSON where it stands. Not thread-safe.
 */
final class JsonRecord {
    /** What was wrong, in the words of {@code Reason}. */
    static final String UNPARSEABLE = "unparseable";
    static final String DUPLICATE_FIELD = "duplicate_field";

    /** Objects and arrays within one another, at most: the log refuses deeper ones too. */
    static final int MAX_NESTING = 100;

    private static final class Wrong extends RuntimeException {
        private static final long serialVersionUID = 1;

        private Wrong(String reason) {
            super(reason, null, false, false);
        }
    }

    private static final Wrong NO_JSON = new Wrong(UNPARSEABLE);
    private static final Wrong TWICE = new Wrong(DUPLICATE_FIELD);
    private static final byte[] NULL = ascii("null"), TRUE = ascii("true"), FALSE = ascii("false");

    private final byte[][] names;
    private final Map<String, Integer> places = new HashMap<>();
    private final boolean[] present;
    private final Text[] values;

    private byte[] bytes;
    private int at;
    private int depth;
    /** Whether the text read last holds a backslash. */
    private boolean escaped;

    /** The text of a value: a part of some bytes, in UTF-8. */
    static final class Text {
        byte[] bytes;
        int start;
        int end;
        /** Null or missing. */
        boolean absent;
        /** Not a text: an object, an array, or one that UTF-8 cannot say. */
        boolean unfit;

        void set(byte[] bytes, int start, int end) {
            this.bytes = bytes;
            this.start = start;
            this.end = end;
            absent = false;
            unfit = false;
        }

        void setAbsent() {
            absent = true;
            unfit = false;
        }

        void setUnfit() {
            absent = false;
            unfit = true;
        }

        /** Set to a text of its own, if it is one. */
        void setWhole(byte[] bytes) {
            if (bytes == null) {
                setAbsent();
            } else if (isUtf8(bytes)) {
                set(bytes, 0, bytes.length);
            } else {
                setUnfit();
            }
        }
    }

    JsonRecord(String[] known) {
        names = new byte[known.length][];
        present = new boolean[known.length];
        values = new Text[known.length];
        for (int i = 0; i < known.length; i++) {
            names[i] = known[i].getBytes(StandardCharsets.UTF_8);
            places.put(known[i], i);
            values[i] = new Text();
        }
    }

    /** The value of a known name in the object read last. */
    Text value(int place) {
        return values[place];
    }

    /** Reads an object; gives what is wrong with it, or null. */
    String read(byte[] record) {
        if (record == null || !isUtf8(record)) {
            return UNPARSEABLE;
        }
        bytes = record;
        at = 0;
        depth = 0;
        Arrays.fill(present, false);
        for (Text value : values) {
            value.setAbsent();
        }
        try {
            skipSpace();
            boolean isObject = at < bytes.length && bytes[at] == '{';
            if (isObject) {
                readObject(true);
            } else {
                skipValue();
            }
            skipSpace();
            return isObject && at == bytes.length ? null : UNPARSEABLE;
        } catch (Wrong wrong) {
            return wrong.getMessage();
        }
    }

    private void readObject(boolean outermost) {
        enter();
        Set<String> others = null;
        boolean twice = false;
        int expected = 0;
        skipSpace();
        if (peek() == '}') {
            leave();
            return;
        }
        while (true) {
            int start = at + 1;
            readString();
            int end = at - 1;
            int place = outermost ? placeOf(start, end, expected) : -1;
            if (place >= 0) {
                twice |= present[place];
                present[place] = true;
                expected = place + 1;
            } else {
                others = others == null ? new HashSet<>() : others;
                twice |= !others.add(escaped ? unescaped(start, end) : utf8(start, end));
            }
            skipSpace();
            take(':');
            skipSpace();
            if (place >= 0) {
                readValue(values[place]);
            } else {
                skipValue();
            }
            skipSpace();
            if (peek() == '}') {
                if (twice) {
                    throw TWICE;
                }
                leave();
                return;
            }
            take(',');
            skipSpace();
        }
    }

    private void readArray() {
        enter();
        skipSpace();
        if (peek() == ']') {
            leave();
            return;
        }
        while (true) {
            skipValue();
            skipSpace();
            if (peek() == ']') {
                leave();
                return;
            }
            take(',');
            skipSpace();
        }
    }

    private void enter() {
        if (++depth > MAX_NESTING) {
            throw NO_JSON;
        }
        at++;
    }

    private void leave() {
        depth--;
        at++;
    }

    /** Known names mostly stand in the same order: the one after the last is tried first. */
    private int placeOf(int start, int end, int expected) {
        if (escaped) {
            return places.getOrDefault(unescaped(start, end), -1);
        }
        if (expected < names.length && Arrays.equals(bytes, start, end, names[expected], 0, names[expected].length)) {
            return expected;
        }
        for (int i = 0; i < names.length; i++) {
            if (Arrays.equals(bytes, start, end, names[i], 0, names[i].length)) {
                return i;
            }
        }
        return -1;
    }

    private void readValue(Text value) {
        int start = at;
        switch (peek()) {
            case '"':
                readString();
                if (escaped) {
                    String text = unescaped(start + 1, at - 1);
                    if (isWhole(text)) {
                        value.setWhole(text.getBytes(StandardCharsets.UTF_8));
                    } else {
                        value.setUnfit();
                    }
                } else {
                    value.set(bytes, start + 1, at - 1);
                }
                break;
            case '{':
            case '[':
                skipValue();
                value.setUnfit();
                break;
            case 'n':
                skipWord(NULL);
                value.setAbsent();
                break;
            default:
                skipValue();
                value.set(bytes, start, at);
        }
    }

    private void skipValue() {
        switch (peek()) {
            case '"':
                readString();
                break;
            case '{':
                readObject(false);
                break;
            case '[':
                readArray();
                break;
            case 'n':
                skipWord(NULL);
                break;
            case 't':
                skipWord(TRUE);
                break;
            case 'f':
                skipWord(FALSE);
                break;
            default:
                skipNumber();
        }
    }

    private void skipNumber() {
        if (peek() == '-') {
            at++;
        }
        if (peek() == '0') {
            at++;
        } else {
            skipDigits();
        }
        if (at < bytes.length && bytes[at] == '.') {
            at++;
            skipDigits();
        }
        if (at < bytes.length && (bytes[at] == 'e' || bytes[at] == 'E')) {
            at++;
            if (peek() == '+' || peek() == '-') {
                at++;
            }
            skipDigits();
        }
    }

    private void skipDigits() {
        int first = at;
        while (at < bytes.length && bytes[at] >= '0' && bytes[at] <= '9') {
            at++;
        }
        if (at == first) {
            throw NO_JSON;
        }
    }

    private void skipWord(byte[] word) {
        int end = at + word.length;
        if (end > bytes.length || !Arrays.equals(bytes, at, end, word, 0, word.length)) {
            throw NO_JSON;
        }
        at = end;
    }

    /** Moves behind the closing quote. */
    private void readString() {
        take('"');
        escaped = false;
        while (at < bytes.length) {
            byte next = bytes[at++];
            if (next == '"') {
                return;
            }
            if (next == '\\') {
                escaped = true;
                skipEscape();
            } else if (next >= 0 && next < ' ') {
                throw NO_JSON;
            }
        }
        throw NO_JSON;
    }

    private void skipEscape() {
        int letter = peek();
        at++;
        if (letter == 'u') {
            for (int i = 0; i < 4; i++, at++) {
                if (!isHex(peek())) {
                    throw NO_JSON;
                }
            }
        } else if ("\"\\/bfnrt".indexOf(letter) < 0) {
            throw NO_JSON;
        }
    }

    private static boolean isHex(int letter) {
        return letter >= '0' && letter <= '9' || letter >= 'a' && letter <= 'f' || letter >= 'A' && letter <= 'F';
    }

    /** The text of a string with escapes; halves of surrogate pairs stay as they are. */
    private String unescaped(int start, int end) {
        StringBuilder text = new StringBuilder(end - start);
        int plain = start;
        for (int i = start; i < end; i++) {
            if (bytes[i] != '\\') {
                continue;
            }
            text.append(utf8(plain, i));
            i++;
            int letter = "bfnrt".indexOf(bytes[i]);
            if (bytes[i] == 'u') {
                text.append((char) Integer.parseInt(utf8(i + 1, i + 5), 16));
                i += 4;
            } else {
                text.append(letter < 0 ? (char) bytes[i] : "\b\f\n\r\t".charAt(letter));
            }
            plain = i + 1;
        }
        return text.append(utf8(plain, end)).toString();
    }

    private String utf8(int start, int end) {
        return new String(bytes, start, end - start, StandardCharsets.UTF_8);
    }

    private void skipSpace() {
        while (at < bytes.length) {
            byte next = bytes[at];
            if (next != ' ' && next != '\n' && next != '\r' && next != '\t') {
                return;
            }
            at++;
        }
    }

    /** The next byte. */
    private int peek() {
        if (at >= bytes.length) {
            throw NO_JSON;
        }
        return bytes[at];
    }

    private void take(char wanted) {
        if (peek() != wanted) {
            throw NO_JSON;
        }
        at++;
    }

    private static boolean isWhole(String text) {
        return StandardCharsets.UTF_8.newEncoder().canEncode(text);
    }

    private static boolean isUtf8(byte[] text) {
        for (byte next : text) {
            if (next < 0) {
                return isStrictUtf8(text);
            }
        }
        return true;
    }

    private static boolean isStrictUtf8(byte[] text) {
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(text));
            return true;
        } catch (CharacterCodingException error) {
            return false;
        }
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }
}
