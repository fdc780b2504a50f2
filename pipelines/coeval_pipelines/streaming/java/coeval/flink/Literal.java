package coeval.flink;

import java.math.BigInteger;
import java.nio.charset.StandardCharsets;

/**
 * The literal grammar of one type, to the letter of {@code parse_literal} of {@code coeval.spec.types}: a text to a
 * physical value. Integers, short decimals (unscaled), booleans, days and microseconds are longs. Not thread-safe.
 */
final class Literal {
    /** The digits that every long holds. */
    static final int LONG_DIGITS = 18;

    private static final long MICROS = 1_000_000;
    private static final long DAY_SECONDS = 86_400;
    private static final int[] MONTH_DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    private final String kind;
    private final int precision;
    private final int scale;

    /** The value read last, where it is a long. */
    long whole;
    /** The value read last, of a float64. */
    double real;
    /** The value read last, of a decimal of more than {@link #LONG_DIGITS} digits: unscaled. */
    BigInteger wide;

    private byte[] text;
    private int at;
    private int end;

    Literal(String kind, int precision, int scale) {
        this.kind = kind;
        this.precision = precision;
        this.scale = scale;
    }

    boolean isString() {
        return kind.equals("string");
    }

    boolean isReal() {
        return kind.equals("float64");
    }

    boolean isWide() {
        return kind.equals("decimal") && precision > LONG_DIGITS;
    }

    /** Whether the part of a text is a literal of the type; its value is then to be had. */
    boolean read(byte[] bytes, int start, int stop) {
        text = bytes;
        at = start;
        end = stop;
        switch (kind) {
            case "string":
                return true;
            case "int64":
                return readInteger();
            case "decimal":
                return readDecimal();
            case "float64":
                return readReal();
            case "bool":
                return readBool();
            case "date":
                return readDate() && at == end;
            case "timestamp":
                return readTimestamp() && at == end;
            default:
                throw new IllegalStateException("no grammar of " + kind);
        }
    }

    private boolean readInteger() {
        boolean negative = take('-');
        int first = at;
        if (!skipWhole() || at != end || end - first > 19) {
            return false;
        }
        // Towards the negative side, which reaches one further.
        long value = 0;
        for (int i = first; i < end; i++) {
            int digit = text[i] - '0';
            if (value < (Long.MIN_VALUE + digit) / 10) {
                return false;
            }
            value = value * 10 - digit;
        }
        if (!negative && value == Long.MIN_VALUE) {
            return false;
        }
        whole = negative ? value : -value;
        return true;
    }

    private boolean readDecimal() {
        boolean negative = take('-');
        int first = at;
        if (!skipWhole() || at - first > Math.max(1, precision - scale) || precision == scale && text[first] != '0') {
            return false;
        }
        int point = at;
        if (take('.') && !(skipDigits() && at - point - 1 <= scale)) {
            return false;
        }
        if (at != end) {
            return false;
        }
        int zeros = scale - Math.max(0, end - point - 1);
        if (precision <= LONG_DIGITS) {
            long value = 0;
            for (int i = first; i < end; i++) {
                value = i == point ? value : value * 10 + (text[i] - '0');
            }
            for (int i = 0; i < zeros; i++) {
                value *= 10;
            }
            whole = negative ? -value : value;
        } else {
            String digits = ascii(first, point) + ascii(Math.min(point + 1, end), end) + "0".repeat(zeros);
            wide = negative ? new BigInteger(digits).negate() : new BigInteger(digits);
        }
        return true;
    }

    private boolean readReal() {
        int first = at;
        take('-');
        if (!skipWhole() || take('.') && !skipDigits()) {
            return false;
        }
        if (take('e') || take('E')) {
            if (!take('+')) {
                take('-');
            }
            int power = at;
            if (!skipDigits() || at - power > 3) {
                return false;
            }
        }
        if (at != end) {
            return false;
        }
        // There is one zero: -0.0 + 0.0 is 0.0.
        real = Double.parseDouble(ascii(first, end)) + 0.0;
        return !Double.isInfinite(real);
    }

    private boolean readBool() {
        whole = end - at == 4 ? 1 : 0;
        return ascii(at, end).equals(whole == 1 ? "true" : "false");
    }

    private boolean readTimestamp() {
        if (!readDate() || !take('T')) {
            return false;
        }
        long days = whole;
        int hour = number(2);
        if (hour < 0 || hour > 23 || !take(':')) {
            return false;
        }
        int minute = number(2);
        if (minute < 0 || minute > 59 || !take(':')) {
            return false;
        }
        int second = number(2);
        if (second < 0 || second > 59) {
            return false;
        }
        int fraction = take('.') ? fraction() : 0;
        int east = fraction < 0 ? Integer.MIN_VALUE : offsetMinutes();
        whole = (days * DAY_SECONDS + hour * 3600L + (minute - (long) east) * 60 + second) * MICROS + fraction;
        return east != Integer.MIN_VALUE;
    }

    /** Microseconds; negative where there are none, or more than six digits. */
    private int fraction() {
        int first = at;
        int value = 0;
        for (; at < end && text[at] >= '0' && text[at] <= '9'; at++) {
            if (at - first == 6) {
                return -1;
            }
            value = value * 10 + (text[at] - '0');
        }
        if (at == first) {
            return -1;
        }
        for (int digits = at - first; digits < 6; digits++) {
            value *= 10;
        }
        return value;
    }

    /** Minutes east of UTC; the least integer where there is no zone. */
    private int offsetMinutes() {
        if (take('Z')) {
            return 0;
        }
        boolean west = take('-');
        if (!west && !take('+')) {
            return Integer.MIN_VALUE;
        }
        int hours = number(2);
        int minutes = hours >= 0 && take(':') ? number(2) : -1;
        if (minutes < 0 || hours * 60 + minutes >= 24 * 60) {
            return Integer.MIN_VALUE;
        }
        return (west ? -1 : 1) * (hours * 60 + minutes);
    }

    /** Days since the epoch into {@link #whole}. */
    private boolean readDate() {
        int year = number(4);
        if (year < 1 || !take('-')) {
            return false;
        }
        int month = number(2);
        if (month < 1 || month > 12 || !take('-')) {
            return false;
        }
        int day = number(2);
        boolean leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        if (day < 1 || day > MONTH_DAYS[month - 1] + (leap && month == 2 ? 1 : 0)) {
            return false;
        }
        whole = daysOf(year, month, day);
        return true;
    }

    /** Of the proleptic Gregorian calendar, in years that begin in March, so that a leap day ends its year. */
    private static long daysOf(int year, int month, int day) {
        int years = month > 2 ? year : year - 1;
        int dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
        return years * 365L + years / 4 - years / 100 + years / 400 + dayOfYear - 719_468;
    }

    /** A number of so many digits; negative where they are not there. */
    private int number(int digits) {
        if (end - at < digits) {
            return -1;
        }
        int value = 0;
        for (int stop = at + digits; at < stop; at++) {
            if (text[at] < '0' || text[at] > '9') {
                return -1;
            }
            value = value * 10 + (text[at] - '0');
        }
        return value;
    }

    /** Moves behind the digits of a whole number, which has no leading zero. */
    private boolean skipWhole() {
        return take('0') || skipDigits();
    }

    private boolean skipDigits() {
        int first = at;
        while (at < end && text[at] >= '0' && text[at] <= '9') {
            at++;
        }
        return at > first;
    }

    private boolean take(char wanted) {
        if (at < end && text[at] == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private String ascii(int start, int stop) {
        return new String(text, start, stop - start, StandardCharsets.ISO_8859_1);
    }
}
