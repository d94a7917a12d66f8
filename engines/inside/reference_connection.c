/* One client's socket: reads requests, writes what the kernel takes and keeps the rest, ends as asked. */
#include "reference.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char read_room[256 * 1024];

void open_connection(Server *server, int file) {
    int on = 1;
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Connection *made = zeroed(sizeof *made);
    made->file = file;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = made};
    if (epoll_ctl(server->poll_file, EPOLL_CTL_ADD, file, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* --- the end ----------------------------------------------------------------------------------- */

/* Leaves the connection to free_closed(), since the caller and the poll's events still point to it. */
void close_connection(Server *server, Connection *connection) {
    if (connection->phase == CLOSED)
        return;
    answer_dropped(server, connection);
    connection->phase = CLOSED;
    close(connection->file);
    connection->after = server->closed;
    server->closed = connection;
}

void free_closed(Server *server) {
    while (server->closed) {
        Connection *connection = server->closed;
        server->closed = connection->after;
        bytes_free(&connection->in);
        bytes_free(&connection->out);
        free(connection);
    }
}

/* Closes our end. A close() with bytes unread would reset the connection under the answer. */
void connection_end(Server *server, Connection *connection) {
    answer_dropped(server, connection);
    shutdown(connection->file, SHUT_WR);
    connection->phase = LINGERING;
}

void connection_reset(Server *server, Connection *connection) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0}; /* close() then sends RST instead of FIN */
    setsockopt(connection->file, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close_connection(server, connection);
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Bytes that the kernel took; -1 where the client is gone, and the connection with it. */
long connection_send(Server *server, Connection *connection, Text content) {
    ssize_t sent;
    do
        sent = send(connection->file, content.at, content.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 0;
    close_connection(server, connection);
    return -1;
}

/* Writes at once, or as soon as the client reads. */
void connection_put(Server *server, Connection *connection, Text content) {
    if (connection->phase == CLOSED)
        return;
    long sent = connection->out.length ? 0 : connection_send(server, connection, content);
    if (sent >= 0)
        bytes_add(&connection->out, content.at + sent, content.length - (size_t)sent);
}

static void flush_out(Server *server, Connection *connection) {
    if (!connection->out.length)
        return;
    int64_t sent_ns = now_ns();
    long sent = connection_send(server, connection, bytes_text(&connection->out));
    if (sent < 0)
        return;
    bytes_drop(&connection->out, (size_t)sent);
    if (!connection->out.length && connection->is_recorded) {
        record_add(&server->record, connection->record_id, END, 0, sent_ns);
        connection->is_recorded = false;
    }
}

/* --- reading ----------------------------------------------------------------------------------- */

static void take_next(Server *server, Connection *connection) {
    Request request;
    Refusal refusal = {0};
    if (connection->in.length < connection->needed || !connection->in.length)
        return;
    Taken taken = take_request(bytes_text(&connection->in), &connection->scanned, &request, &refusal);
    if (taken == REFUSED) {
        /* Where the next request begins is not known: the connection cannot be kept. */
        connection->is_last = true;
        answer_refused(server, connection, &refusal);
    } else if (taken == INCOMPLETE) {
        connection->needed = connection->scanned ? 0 : request.length;
    } else {
        connection->needed = 0;
        connection->is_last = request.is_last;
        answer(server, connection, &request, now_ns());
        bytes_drop(&connection->in, request.length);
    }
}

/* To be called after an answer, too: answers the requests that are there whole, one after the other. */
void connection_continue(Server *server, Connection *connection) {
    size_t before = 0;
    while (connection->phase == READING && connection->in.length != before) {
        before = connection->in.length;
        take_next(server, connection);
    }
}

/* The answer is written. */
void connection_answered(Server *server, Connection *connection) {
    if (connection->phase == CLOSED)
        return;
    connection->phase = connection->out.length ? FLUSHING : READING;
    if (connection->phase == READING && connection->is_last)
        connection_end(server, connection);
}

static void read_all(Server *server, Connection *connection) {
    while (connection->phase != CLOSED) {
        ssize_t length = recv(connection->file, read_room, sizeof read_room, 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length <= 0) {
            close_connection(server, connection);
        } else if (connection->phase != LINGERING) {
            bytes_add(&connection->in, read_room, (size_t)length);
            connection_continue(server, connection);
            if (connection->phase != READING && connection->in.length > BODY_LIMIT_BYTES)
                close_connection(server, connection);
        }
    }
}

void connection_ready(Server *server, Connection *connection, bool is_readable, bool is_writable) {
    if (is_writable && connection->phase != CLOSED)
        flush_out(server, connection);
    if (connection->phase == FLUSHING && !connection->out.length) {
        connection_answered(server, connection);
        connection_continue(server, connection);
    }
    if (connection->phase == BLOCKED && !connection->out.length) {
        connection->phase = SCHEDULED;
        schedule_put(&server->schedule, &connection->due, connection->due.due_ns);
    }
    if (is_readable)
        read_all(server, connection);
}
