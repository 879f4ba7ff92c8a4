/*
 * tls.c - a stream through OpenSSL. The server's certificate is always verified, its name or address included.
 *
 * OpenSSL's own socket layer writes with write(2), which can raise SIGPIPE; so it gets one of ours, which also reaches through a
 * transport that the application made.
 */
#include "redis_store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct redis_tls {
    const verrou_host *host;
    SSL *ssl;
    redis_stream *stream;
    int wants;  /* what SSL_get_error() said last */
    bool final; /* a certificate or the protocol is wrong: trying again does not help */
    char why[256];
};

/* ---- OpenSSL's view of a stream ---- */

static int bio_write(BIO *bio, const char *bytes, int size)
{
    redis_tls *tls = BIO_get_data(bio);
    ssize_t put = verrou__redis_stream_raw_write(tls->stream, bytes, (size_t)size);

    BIO_clear_retry_flags(bio);
    if (put < 0 && errno == EAGAIN)
        BIO_set_retry_write(bio);
    return (int)put;
}

static int bio_read(BIO *bio, char *buffer, int size)
{
    redis_tls *tls = BIO_get_data(bio);
    ssize_t got = verrou__redis_stream_raw_read(tls->stream, buffer, (size_t)size);

    BIO_clear_retry_flags(bio);
    if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    return (int)got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

/* Once a process, and never freed: there is no moment at which nobody needs it. */
static void method_make(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "verrou stream");
    if (!method)
        return;
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_ctrl(method, bio_ctrl);
}

/* ---- what went wrong ---- */

/* Whether another attempt would end in the same way: the server said with an alert what it does not like, or it speaks something else. */
static bool is_final(unsigned long code)
{
    int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;

    if (reason == SSL_R_TLSV1_ALERT_INTERNAL_ERROR || reason == SSL_R_TLSV1_ALERT_USER_CANCELLED)
        return false;
    return reason > SSL_AD_REASON_OFFSET || reason == SSL_R_WRONG_VERSION_NUMBER ||
           reason == SSL_R_UNSUPPORTED_PROTOCOL;
}

static void why(redis_tls *tls, const char *otherwise)
{
    unsigned long code = ERR_peek_last_error();
    long verdict = tls->ssl ? SSL_get_verify_result(tls->ssl) : X509_V_OK;

    tls->final = verdict != X509_V_OK || is_final(code);
    if (verdict != X509_V_OK)
        snprintf(tls->why, sizeof tls->why, "the server's certificate: %s", X509_verify_cert_error_string(verdict));
    else if (code)
        snprintf(tls->why, sizeof tls->why, "%s",
                 ERR_reason_error_string(code) ? ERR_reason_error_string(code) : otherwise);
    else
        snprintf(tls->why, sizeof tls->why, "%s", otherwise);
    ERR_clear_error();
}

/* ---- reading and writing ---- */

/* The result of an SSL call as that of read() or write(). */
static ssize_t outcome(redis_tls *tls, int result)
{
    int error = errno;

    tls->wants = SSL_get_error(tls->ssl, result);
    if (result > 0)
        return result;
    if (tls->wants == SSL_ERROR_WANT_READ || tls->wants == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (tls->wants == SSL_ERROR_ZERO_RETURN || (tls->wants == SSL_ERROR_SYSCALL && result == 0)) {
        ERR_clear_error();
        return 0;
    }
    why(tls, "the connection failed");
    errno = tls->wants == SSL_ERROR_SYSCALL && error && error != EAGAIN ? error : ECONNRESET;
    return -1;
}

ssize_t verrou__redis_tls_write(redis_tls *tls, const void *bytes, size_t size)
{
    ERR_clear_error();
    errno = 0;
    return outcome(tls, SSL_write(tls->ssl, bytes, size > INT_MAX ? INT_MAX : (int)size));
}

ssize_t verrou__redis_tls_read(redis_tls *tls, void *buffer, size_t size)
{
    ERR_clear_error();
    errno = 0;
    return outcome(tls, SSL_read(tls->ssl, buffer, size > INT_MAX ? INT_MAX : (int)size));
}

const char *verrou__redis_tls_failure(const redis_tls *tls, bool *ret_final)
{
    *ret_final = tls->final;
    return tls->why[0] ? tls->why : NULL;
}

bool verrou__redis_tls_wants_read(const redis_tls *tls)
{
    return tls->wants == SSL_ERROR_WANT_READ;
}

bool verrou__redis_tls_wants_write(const redis_tls *tls)
{
    return tls->wants == SSL_ERROR_WANT_WRITE;
}

/* ---- opening and closing ---- */

static bool shake_hands(redis_state *state, redis_tls *tls, int64_t deadline_ms)
{
    for (;;) {
        ssize_t done;
        struct pollfd in = {tls->stream->fd, POLLIN, 0};
        int64_t left_ms = deadline_ms - state->host->now_ms();

        ERR_clear_error();
        errno = 0;
        done = outcome(tls, SSL_connect(tls->ssl));
        if (done > 0)
            return true;
        if (done == 0 || errno != EAGAIN) {
            if (done == 0)
                why(tls, "the server closed the connection; does it speak TLS?");
            return false;
        }
        if (left_ms <= 0) {
            /* Redis without TLS takes our first words for the beginning of a long line, and waits for its end. */
            snprintf(tls->why, sizeof tls->why, "no answer in time; does the server speak TLS?");
            return false;
        }
        if (tls->wants == SSL_ERROR_WANT_WRITE)
            verrou__redis_stream_wait_write(state, tls->stream, deadline_ms);
        else
            poll(&in, 1, left_ms > 60000 ? 60000 : (int)left_ms);
    }
}

/* The certificate has to be for this name or address. */
static bool expect_name(SSL *ssl, const char *name)
{
    unsigned char binary[sizeof(struct in6_addr)];

    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (inet_pton(AF_INET, name, binary) == 1 || inet_pton(AF_INET6, name, binary) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

bool verrou__redis_tls_open(redis_state *state, redis_stream *stream, const char *name, int64_t deadline_ms,
                            redis_fault *fault)
{
    redis_tls *tls = state->host->malloc(sizeof *tls);
    const char *expected = state->server_name ? state->server_name : name;
    BIO *bio = NULL;

    pthread_once(&method_once, method_make);
    if (!tls) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "out of memory");
        return false;
    }
    *tls = (redis_tls){.host = state->host, .stream = stream};
    ERR_clear_error();
    tls->ssl = SSL_new(state->tls);
    if (tls->ssl && method)
        bio = BIO_new(method);
    if (!bio || !expect_name(tls->ssl, expected)) {
        BIO_free(bio);
        why(tls, "out of memory");
        goto failed;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    if (!shake_hands(state, tls, deadline_ms))
        goto failed;
    /* A stream with TLS is read by polling: what has come may lie in OpenSSL's buffer. */
    stream->patient = false;
    stream->tls = tls;
    return true;
failed:
    verrou__redis_fault_set(fault, tls->final ? VERROU_OP_FAILED : VERROU_OP_RETRY, !tls->final, "TLS",
                            "TLS with %s: %s", expected, tls->why);
    SSL_free(tls->ssl);
    state->host->free(tls);
    return false;
}

/* Without the closing alert: it would have to be waited for, and Redis does not miss it. */
void verrou__redis_tls_close(redis_tls *tls)
{
    const verrou_host *host = tls->host;

    SSL_free(tls->ssl);
    host->free(tls);
}

/* ---- the context ---- */

static verrou_status bad_file(const verrou_host *host, verrou_error *err, const char *setting, const char *file)
{
    unsigned long code = ERR_peek_error();
    bool of_system = ERR_GET_LIB(code) == ERR_LIB_SYS;
    const char *reason = of_system ? strerror(ERR_GET_REASON(code)) : code ? ERR_reason_error_string(code) : NULL;
    verrou_status status = host->fail(err, VERROU_ECONFIG, 0, NULL, "redis: setting %s=%s: %s", setting, file,
                                      reason ? reason : "cannot be read");

    ERR_clear_error();
    return status;
}

verrou_status verrou__redis_tls_context(const verrou_host *host, const char *ca, const char *cert, const char *key,
                                        void **ret_context, verrou_error *err)
{
    SSL_CTX *context;
    verrou_status status = VERROU_OK;

    ERR_clear_error();
    context = SSL_CTX_new(TLS_client_method());
    if (!context) {
        ERR_clear_error();
        return host->fail(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (ca ? SSL_CTX_load_verify_locations(context, ca, NULL) != 1 : SSL_CTX_set_default_verify_paths(context) != 1)
        status = bad_file(host, err, "ca", ca ? ca : "(the system's)");
    else if (cert && SSL_CTX_use_certificate_chain_file(context, cert) != 1)
        status = bad_file(host, err, "cert", cert);
    else if (key && SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        status = bad_file(host, err, "key", key);
    if (status != VERROU_OK) {
        SSL_CTX_free(context);
        return status;
    }
    *ret_context = context;
    return VERROU_OK;
}

void verrou__redis_tls_context_free(void *context)
{
    SSL_CTX_free(context);
}
