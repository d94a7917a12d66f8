/* JSON as Python's json module takes it: checks a whole document once, then walks it without a tree. */
#include "reference.h"

#include <string.h>

#define DEPTH_LIMIT 900 /* about where Python's recursion limit ends */
#define EACH_BYTE 0x0101010101010101ull
#define HIGH_BITS (EACH_BYTE * 0x80)

typedef const char *At;

static At skip_value(At at, At end, int depth);

static At skip_space(At at, At end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static At skip_word(At at, At end, const char *word) {
    size_t length = strlen(word);
    return (size_t)(end - at) >= length && memcmp(at, word, length) == 0 ? at + length : NULL;
}

static At skip_digits(At at, At end) {
    At first = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at > first ? at : NULL;
}

static At skip_number(At at, At end) {
    At next;
    if (*at == '-')
        at++;
    if (at < end && *at == 'I')
        return skip_word(at, end, "Infinity");
    at = at < end && *at == '0' ? at + 1 : skip_digits(at, end);
    if (at && at < end && *at == '.' && (next = skip_digits(at + 1, end)))
        at = next;
    if (at && at < end && (*at == 'e' || *at == 'E')) {
        At sign = at + 1;
        if (sign < end && (*sign == '+' || *sign == '-'))
            sign++;
        if ((next = skip_digits(sign, end)))
            at = next;
    }
    return at;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The code unit of four hexadecimal digits, or -1. */
static int hex_unit(At at, At end) {
    int unit = 0;
    if (end - at < 4)
        return -1;
    for (int k = 0; k < 4; k++) {
        int digit = hex_digit(at[k]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* The length of the UTF-8 sequence that begins here, or 0. */
static size_t utf8_length(At at, At end) {
    const unsigned char *u = (const unsigned char *)at;
    size_t length = u[0] < 0x80   ? 1
                    : u[0] < 0xC2 ? 0
                    : u[0] < 0xE0 ? 2
                    : u[0] < 0xF0 ? 3
                    : u[0] < 0xF5 ? 4
                                  : 0;
    if (!length || (size_t)(end - at) < length)
        return 0;
    for (size_t k = 1; k < length; k++)
        if ((u[k] & 0xC0) != 0x80)
            return 0;
    bool is_overlong = (u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xF0 && u[1] < 0x90);
    bool is_too_large = (u[0] == 0xED && u[1] > 0x9F) || (u[0] == 0xF4 && u[1] > 0x8F);
    return is_overlong || is_too_large ? 0 : length;
}

/* Past all bytes that mean themselves, eight at a time: prompts are long. */
static At skip_plain(At at, At end) {
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t quote = word ^ EACH_BYTE * '"', escape = word ^ EACH_BYTE * '\\';
        uint64_t found = (word - EACH_BYTE * 0x20) | (quote - EACH_BYTE) | (escape - EACH_BYTE) | word;
        if (found & HIGH_BITS)
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return at;
}

static At skip_escape(At at, At end) {
    if (at >= end)
        return NULL;
    if (*at == 'u')
        return hex_unit(at + 1, end) < 0 ? NULL : at + 5;
    return memchr("\"\\/bfnrt", *at, 8) ? at + 1 : NULL;
}

static At skip_string(At at, At end) {
    for (at = skip_plain(at + 1, end); at && at < end; at = at ? skip_plain(at, end) : NULL) {
        if (*at == '"')
            return at + 1;
        size_t length = (unsigned char)*at < 0x20 ? 0 : utf8_length(at, end);
        at = *at == '\\' ? skip_escape(at + 1, end) : length ? at + length : NULL;
    }
    return NULL;
}

static At skip_list(At at, At end, int depth) {
    bool is_object = *at == '{';
    char close = is_object ? '}' : ']';
    at = skip_space(at + 1, end);
    if (at < end && *at == close)
        return at + 1;
    while (at && at < end) {
        if (is_object) {
            at = *at == '"' ? skip_string(at, end) : NULL;
            at = at ? skip_space(at, end) : NULL;
            if (!at || at >= end || *at != ':')
                return NULL;
            at = skip_space(at + 1, end);
        }
        at = skip_value(at, end, depth);
        at = at ? skip_space(at, end) : NULL;
        if (!at || at >= end || (*at != ',' && *at != close))
            return NULL;
        if (*at == close)
            return at + 1;
        at = skip_space(at + 1, end);
    }
    return NULL;
}

/* Past the value that begins here; NULL where none does. */
static At skip_value(At at, At end, int depth) {
    if (at >= end || depth > DEPTH_LIMIT)
        return NULL;
    switch (*at) {
    case '{':
    case '[':
        return skip_list(at, end, depth + 1);
    case '"':
        return skip_string(at, end);
    case 't':
        return skip_word(at, end, "true");
    case 'f':
        return skip_word(at, end, "false");
    case 'n':
        return skip_word(at, end, "null");
    case 'N':
        return skip_word(at, end, "NaN");
    default:
        return skip_number(at, end);
    }
}

/* NULL where the document is JSON, else what it is instead. */
const char *json_problem(Text document) {
    At end = document.at + document.length, first = skip_space(document.at, end);
    At after = skip_value(first, end, 0);
    if (!after)
        return "no value, one that is broken or cut short, or too many levels";
    return skip_space(after, end) == end ? NULL : "something follows its end";
}

Text json_root(Text document) {
    At end = document.at + document.length, first = skip_space(document.at, end);
    return (Text){first, (size_t)(skip_value(first, end, 0) - first)};
}

/* The next value of a list, of which `rest` is what follows: the list itself without its bracket at first. */
bool json_next(Text *rest, Text *value) {
    At end = rest->at + rest->length, at = skip_space(rest->at, end);
    if (*at == ',' || *at == ':')
        at = skip_space(at + 1, end);
    if (*at == ']' || *at == '}')
        return false;
    At after = skip_value(at, end, 0);
    *value = (Text){at, (size_t)(after - at)};
    *rest = (Text){after, (size_t)(end - after)};
    return true;
}

static bool is_named(Text string, const char *name) {
    Text inner = {string.at + 1, string.length - 2};
    if (!memchr(inner.at, '\\', inner.length))
        return text_is(inner, name);
    Bytes decoded = {0};
    json_decode(string, &decoded);
    bool is_same = text_is(bytes_text(&decoded), name);
    bytes_free(&decoded);
    return is_same;
}

/* The values of these members; at NULL where absent. Of two with one name the last counts. */
void json_members(Text object, size_t count, const char *const names[], Text values[], bool *has_others) {
    Text rest = {object.at + 1, object.length - 1}, name, value;
    memset(values, 0, count * sizeof *values);
    *has_others = false;
    while (json_next(&rest, &name) && json_next(&rest, &value)) {
        size_t k = 0;
        while (k < count && !is_named(name, names[k]))
            k++;
        if (k < count)
            values[k] = value;
        else
            *has_others = true;
    }
}

bool json_is(Text value, char kind) {
    return value.at && *value.at == kind;
}

bool json_is_null(Text value) {
    return !value.at || *value.at == 'n';
}

/* As Python sees it: absent, null, false, 0, "", [] and {}. */
bool json_is_false(Text value) {
    if (json_is_null(value) || *value.at == 'f')
        return true;
    if (*value.at == '"')
        return value.length == 2;
    if (*value.at == '[' || *value.at == '{') {
        At end = value.at + value.length;
        return skip_space(value.at + 1, end) == end - 1;
    }
    for (size_t k = 0; k < value.length && *value.at != 't'; k++)
        if ((value.at[k] | 0x20) == 'e')
            break;
        else if (!strchr("-+.0", value.at[k]))
            return false;
    return *value.at != 't';
}

static void add_utf8(Bytes *out, unsigned point) {
    unsigned char coded[4];
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t k = length; k-- > 1; point >>= 6)
        coded[k] = (unsigned char)(0x80 | (point & 0x3F));
    coded[0] = (unsigned char)(marks[length] | point);
    bytes_add(out, coded, length);
}

/* The text of \uXXXX, whose digits begin here, with its other half where there is one; past it. */
static At decode_unit(At at, At end, Bytes *out) {
    unsigned unit = (unsigned)hex_unit(at, end);
    at += 4;
    if (unit >= 0xD800 && unit < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
        unsigned low = (unsigned)hex_unit(at + 2, end);
        if (low >= 0xDC00 && low < 0xE000) {
            add_utf8(out, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
            return at + 6;
        }
    }
    add_utf8(out, unit >= 0xD800 && unit < 0xE000 ? '?' : unit);
    return at;
}

/* Adds a string's text in UTF-8; half a surrogate pair becomes a question mark. */
void json_decode(Text string, Bytes *out) {
    static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
    At at = string.at + 1, end = string.at + string.length - 1;
    while (at < end) {
        At escape = memchr(at, '\\', (size_t)(end - at));
        bytes_add(out, at, (size_t)((escape ? escape : end) - at));
        if (!escape)
            return;
        const char *known = strchr(from, escape[1]);
        if (escape[1] != 'u')
            bytes_add(out, known ? into + (known - from) : escape + 1, 1);
        at = escape[1] == 'u' ? decode_unit(escape + 2, end, out) : escape + 2;
    }
}

/* The length of a string's text in UTF-8. */
size_t json_text_bytes(Text string) {
    if (!memchr(string.at, '\\', string.length))
        return string.length - 2;
    Bytes decoded = {0};
    json_decode(string, &decoded);
    size_t length = decoded.length;
    bytes_free(&decoded);
    return length;
}

static bool add_ascii(Bytes *out, unsigned char c) {
    if (c >= 0x80)
        return false;
    if (c == '"' || c == '\\')
        bytes_print(out, "\\%c", c);
    else if (c < 0x20)
        bytes_print(out, "\\u%04x", c);
    else
        bytes_add(out, &c, 1);
    return true;
}

/* Adds a text as the inside of a JSON string. A byte that is no UTF-8 becomes the surrogate that Python
   makes of it on a command line. */
void json_add_escaped(Bytes *out, Text utf8) {
    At at = utf8.at, end = utf8.at + utf8.length;
    while (at < end) {
        size_t length = utf8_length(at, end);
        if (!length)
            bytes_print(out, "\\udc%02x", (unsigned char)*at);
        else if (!add_ascii(out, (unsigned char)*at))
            bytes_add(out, at, length);
        at += length ? length : 1;
    }
}

/* The same for a header's value. */
void json_add_latin1(Bytes *out, Text latin1) {
    for (size_t k = 0; k < latin1.length; k++)
        if (!add_ascii(out, (unsigned char)latin1.at[k]))
            bytes_print(out, "\\u%04x", (unsigned char)latin1.at[k]);
}
