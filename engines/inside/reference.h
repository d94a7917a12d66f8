/* The native reference server's own types. What it does is described in reference_server.py, whose twin it
   is.

   Instants are CLOCK_MONOTONIC nanoseconds. A Text is a slice of somebody else's bytes. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_LIMIT_BYTES (64 * 1024)
#define BODY_LIMIT_BYTES (16 * 1024 * 1024)
#define NS_PER_S 1000000000LL

/* --- bytes: reference_bytes.c ------------------------------------------------------------------ */

typedef struct {
    const char *at;
    size_t length;
} Text;

#define TEXT(literal) ((Text){literal, sizeof(literal) - 1})
#define AS_PRINTED(text) (int)(text).length, (text).at

bool text_is(Text text, const char *expected);

/* A growing buffer; the process ends with one line where there is no memory. */
typedef struct {
    char *at;
    size_t length;
    size_t capacity;
} Bytes;

char *bytes_room(Bytes *bytes, size_t length);
void bytes_add(Bytes *bytes, const void *content, size_t length);
void bytes_print(Bytes *bytes, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_drop(Bytes *bytes, size_t length);
void bytes_free(Bytes *bytes);
Text bytes_text(const Bytes *bytes);
void *zeroed(size_t length);
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now_ns(void);

/* --- JSON: reference_json.c -------------------------------------------------------------------- */

/* A value is the slice of a checked document from its first to its last character. */
const char *json_problem(Text document);
Text json_root(Text document);
void json_members(Text object, size_t count, const char *const names[], Text values[], bool *has_others);
bool json_next(Text *rest, Text *value);
bool json_is(Text value, char kind);
bool json_is_false(Text value);
bool json_is_null(Text value);
size_t json_text_bytes(Text string);
void json_decode(Text string, Bytes *out);
void json_add_escaped(Bytes *out, Text utf8);
void json_add_latin1(Bytes *out, Text latin1);

/* --- options: reference_options.c -------------------------------------------------------------- */

typedef enum {
    NO_FAULT,
    RESET,
    STALL,
    TRUNCATE,
    END_EARLY,
    ERROR_EVENT,
    GARBAGE,
    EXIT,
    HTTP_STATUS,
    NO_DONE,
    NO_GENERATION,
    IGNORE_TERM,
} FaultKind;

typedef struct {
    FaultKind kind;
    int64_t at;
    int64_t every;
} Fault;

typedef struct {
    const char *model;
    int64_t port;
    const char *sends;
    int64_t context_length;
    double ttft_s;
    double itl_s;
    int64_t output_tokens; /* 0: not given */
    int64_t slots;
    double start_delay_s;
    Fault fault;
    const char *label;
    int64_t tokens_per_chunk;
    double prefill_per_token_s;
    int64_t memory_bytes;
    bool role_chunk;
} Options;

extern const char FAULT_CHOICES[];
Options read_arguments(int count, char **words);
bool read_fault(Text text, Fault *fault);
bool read_seconds(Text text, double *seconds);
bool read_count(Text text, int64_t *count);
void add_options(Bytes *out, const Options *options);

/* --- HTTP: reference_http.c -------------------------------------------------------------------- */

typedef struct {
    Text method;
    Text path;
    Text request_id; /* length 0: none was given */
    bool is_last;
    Text body;
    size_t length;
} Request;

typedef struct {
    int status;
    const char *code; /* NULL: the status */
    Bytes message;
} Refusal;

typedef enum { INCOMPLETE, COMPLETE, REFUSED } Taken;

Taken take_request(Text buffer, size_t *scanned, Request *request, Refusal *refusal);
void refuse(Refusal *refusal, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
void add_head(Bytes *out, int status, const char *content_type, const char *framing, Text request_id);
void add_whole(Bytes *out, int status, const char *content_type, Text body, Text request_id);
void add_error_json(Bytes *out, const Refusal *refusal);

/* --- one generation: reference_job.c ----------------------------------------------------------- */

typedef struct {
    bool is_streamed;
    bool has_usage;
    double ttft_s;
    double itl_s;
    Fault fault; /* NO_FAULT: does not strike this one */
    int64_t prompt_tokens;
    int64_t output_tokens;
    int64_t tokens_per_chunk;
    int64_t chunks;
    const char *finish_reason;
    uint64_t random;
    Bytes id;
    Bytes event; /* room for the chunk's size, then the beginning that all events share */
    size_t envelope_end;
    size_t prefix_end;
} Job;

bool read_job(Job *job, const Options *options, const Request *request, int64_t generation, Refusal *refusal);
void free_job(Job *job);
int64_t due_ns(const Job *job, const Options *options, int64_t start_ns, int64_t chunk);
int64_t tokens_of(const Job *job, int64_t chunk);
Text content_event(Job *job, int64_t chunk);
void add_event(Bytes *out, Text data);
void add_role_event(Bytes *out, const Job *job);
void add_finish_event(Bytes *out, const Job *job);
void add_usage_event(Bytes *out, const Job *job);
void add_answer_json(Bytes *out, Job *job);

/* --- sends.bin: reference_record.c ------------------------------------------------------------- */

#define ARRIVAL 0xFFFFFFFFu
#define END 0xFFFFFFFEu
#define RECORD_ID_BYTES 36

typedef struct {
    int file; /* -1: nothing is recorded */
    Bytes pending;
    size_t written; /* of pending */
} Record;

void open_record(Record *record, const char *directory);
void record_id(char id[RECORD_ID_BYTES], Text request_id);
void record_add(Record *record, const char id[RECORD_ID_BYTES], uint32_t chunk, int64_t due, int64_t sent);
void record_flush(Record *record, size_t limit_bytes);
size_t record_pending(const Record *record);

/* --- the due times: reference_schedule.c -------------------------------------------------------- */

typedef struct {
    int64_t due_ns;
    size_t place; /* in the heap, from 1; 0: not in it */
} Due;

typedef struct {
    Due **heap; /* heap[1] is the earliest */
    size_t count;
    size_t capacity;
} Schedule;

void schedule_put(Schedule *schedule, Due *due, int64_t due_ns);
void schedule_remove(Schedule *schedule, Due *due);

/* --- connections and their answers: reference_connection.c, reference_answer.c ------------------- */

typedef enum {
    READING,   /* between requests, or in the middle of one */
    WAITING,   /* for a slot */
    SCHEDULED, /* the next chunk has its due time */
    BLOCKED,   /* it is due, and the client does not read */
    STALLED,   /* a fault: silent until the client goes */
    FLUSHING,  /* all is written; the client has not taken all yet */
    LINGERING, /* our end is closed; the client's bytes are thrown away until it closes its own */
    CLOSED,    /* to be freed at the end of the turn */
} Phase;

typedef struct Connection Connection;
struct Connection {
    Due due; /* first: the schedule's pointers are the connections' */
    int file;
    Phase phase;
    Bytes in;
    Bytes out; /* what the kernel would not take */
    size_t scanned;
    size_t needed; /* bytes of the request that is incomplete; 0: not known */
    bool is_last;
    bool has_slot;
    bool is_recorded; /* the end of what is in `out` is the end of a recorded answer */
    char record_id[RECORD_ID_BYTES];
    Job job;
    int64_t start_ns;
    int64_t chunk;
    Text event;                 /* the chunk that is due, once written out */
    Connection *before, *after; /* in the queue for a slot, or among the closed */
};

typedef struct {
    Options options;
    Record record;
    Schedule schedule;
    Connection *first_waiting, *last_waiting;
    Connection *closed;
    int poll_file;
    int listener;
    bool is_listening;
    int64_t generations, running, waiting, prompt_tokens, output_tokens;
} Server;

void open_connection(Server *server, int file);
void connection_ready(Server *server, Connection *connection, bool is_readable, bool is_writable);
void connection_put(Server *server, Connection *connection, Text content);
long connection_send(Server *server, Connection *connection, Text content);
void connection_answered(Server *server, Connection *connection);
void connection_continue(Server *server, Connection *connection);
void connection_end(Server *server, Connection *connection);
void connection_reset(Server *server, Connection *connection);
void close_connection(Server *server, Connection *connection);
void free_closed(Server *server);

void answer(Server *server, Connection *connection, const Request *request, int64_t arrived_ns);
void answer_refused(Server *server, Connection *connection, Refusal *refusal);
void answer_due(Server *server, Connection *connection);
void answer_dropped(Server *server, Connection *connection);
void fill_slots(Server *server);

#endif
