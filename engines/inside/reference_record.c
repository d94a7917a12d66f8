/* sends.bin: written in blocks, when nothing is due or much is pending. */
#include "reference.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "RFSENDS\n"
#define VERSION 2
#define RECORD_BYTES (RECORD_ID_BYTES + 4 + 8 + 8)
#define HEADER_BYTES 16

static void put_number(char *at, uint64_t number, size_t bytes) {
    for (size_t k = 0; k < bytes; k++)
        at[k] = (char)(number >> (8 * k));
}

static void make_header(char header[HEADER_BYTES]) {
    memcpy(header, MAGIC, 8);
    put_number(header + 8, VERSION, 4);
    put_number(header + 12, RECORD_BYTES, 4);
}

/* Appends to what an earlier server wrote; ends the process where that is something else. */
void open_record(Record *record, const char *directory) {
    *record = (Record){.file = -1};
    if (!directory)
        return;
    Bytes path = {0};
    bytes_print(&path, "%s/sends.bin%c", directory, 0);
    record->file = open(path.at, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    char header[HEADER_BYTES], found[HEADER_BYTES];
    make_header(header);
    ssize_t length = record->file < 0 ? -1 : pread(record->file, found, sizeof found, 0);
    if (length < 0)
        die("%s: %s", path.at, strerror(errno));
    if (length == 0)
        bytes_add(&record->pending, header, sizeof header);
    else if (length < HEADER_BYTES || memcmp(found, header, sizeof header) != 0)
        die("%s: not a record of version %d; move it away", path.at, VERSION);
    bytes_free(&path);
}

/* What is not ASCII becomes a question mark. */
void record_id(char id[RECORD_ID_BYTES], Text request_id) {
    memset(id, 0, RECORD_ID_BYTES);
    for (size_t k = 0; k < request_id.length && k < RECORD_ID_BYTES; k++)
        id[k] = (unsigned char)request_id.at[k] < 0x80 ? request_id.at[k] : '?';
}

void record_add(Record *record, const char id[RECORD_ID_BYTES], uint32_t chunk, int64_t due, int64_t sent) {
    if (record->file < 0)
        return;
    char *row = bytes_room(&record->pending, RECORD_BYTES);
    memcpy(row, id, RECORD_ID_BYTES);
    put_number(row + RECORD_ID_BYTES, chunk, 4);
    put_number(row + RECORD_ID_BYTES + 4, (uint64_t)due, 8);
    put_number(row + RECORD_ID_BYTES + 12, (uint64_t)sent, 8);
    record->pending.length += RECORD_BYTES;
}

/* Writes at most so many bytes of what is pending: a large write would make the next chunk late. */
void record_flush(Record *record, size_t limit_bytes) {
    while (record->file >= 0 && limit_bytes && record_pending(record)) {
        size_t left = record_pending(record);
        left = left < limit_bytes ? left : limit_bytes;
        ssize_t written = write(record->file, record->pending.at + record->written, left);
        if (written < 0 && errno != EINTR)
            die("sends.bin: %s", strerror(errno));
        record->written += written > 0 ? (size_t)written : 0;
        limit_bytes -= written > 0 ? (size_t)written : 0;
    }
    if (record->written > record_pending(record)) {
        bytes_drop(&record->pending, record->written);
        record->written = 0;
    }
}

size_t record_pending(const Record *record) {
    return record->pending.length - record->written;
}
