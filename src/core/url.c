/*
 * url.c - store addresses, SCHEME:REST[?NAME=VALUE&...]. They are split by hand because they are not all URIs: a file
 * name with spaces or an ODBC connection string is welcome behind its scheme. The first '?' ends the rest; a '?' that
 * belongs to it is written %3F, a '%' %25.
 *
 * Addresses hold passwords. No message of this file quotes more than the scheme and the names of settings, and
 * redaction prefers to hide too much: it also has to work on addresses that cannot be parsed. What is taken for the
 * password of a network address is exactly what redaction hides: an address of which more would be hidden is refused.
 */
#include "core/core.h"

#include <string.h>

#define MAX_SCHEME 32
#define MAX_SETTING_NAME 64

/* ---- characters, without locale ---- */

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char to_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name(char c)
{
    return is_lower(to_lower(c)) || is_digit(c) || c == '_' || c == '-' || c == '.';
}

static int hex_value(char c)
{
    c = to_lower(c);
    if (is_digit(c))
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- the password in "//user:password@host" ---- */

typedef struct range {
    const char *start;
    const char *end;
} range;

/* The last such character of a range, NULL if there is none. */
static const char *last_of(const char *start, const char *end, char c)
{
    while (end > start)
        if (*--end == c)
            return end;
    return NULL;
}

/* Whether this is "host:port,host:port,...", ports being numbers, and so not "user:password". */
static bool is_hosts(const char *at, const char *end)
{
    for (;;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *item_end = comma != NULL ? comma : end;
        const char *port = last_of(at, item_end, ':');

        if (at[0] != '[' && port != NULL)
            while (++port < item_end)
                if (!is_digit(*port))
                    return false;
        if (comma == NULL)
            return true;
        at = comma + 1;
    }
}

/*
 * The password of "//user:password@host". A password may hold an unescaped '/' or '@' that people forgot to escape: it
 * goes to the last '@' before the settings. With an unescaped '?' in it, it goes to the last '@' of all.
 */
static range find_password(const char *rest, const char *query)
{
    range none = {NULL, NULL};
    range found;
    const char *end, *at;

    if (strncmp(rest, "//", 2) != 0)
        return none;
    rest += 2;
    if (rest[0] == '\0' || rest[0] == '/' || rest[0] == '?')
        return none;
    end = rest + strcspn(rest, "/?#");

    at = last_of(rest, query, '@');
    found.start = memchr(rest, ':', (size_t)((at != NULL ? at : end) - rest));
    if (found.start == NULL)
        return none;
    found.start++;
    if (at == NULL) {
        if (is_hosts(rest, end))
            return none;
        at = last_of(query, query + strlen(query), '@');
        if (at == NULL)
            return none;
    }
    found.end = at;
    return found;
}

/* ---- parsing ---- */

/* Length of the scheme at the start of the text, 0 with an error if there is none. */
static size_t scheme_length(const char *text, verrou_error *err)
{
    size_t len = 0;

    while (is_lower(text[len]) || (len > 0 && (is_digit(text[len]) || text[len] == '+' || text[len] == '-')))
        len++;
    if (text[0] == '\0') {
        verrou__fail(err, VERROU_ECONFIG, "store address: empty");
    } else if (len == 0 || text[len] != ':') {
        verrou__fail(err, VERROU_ECONFIG,
                     "store address: it does not start with a scheme of a-z, 0-9, '+' and '-', as in \"memory:\"");
        len = 0;
    } else if (len > MAX_SCHEME) {
        verrou__fail(err, VERROU_ECONFIG, "store address: its scheme is longer than %d bytes", MAX_SCHEME);
        len = 0;
    }
    return len;
}

/* Decode %XX in place. Answers what is wrong, NULL if nothing is. */
static const char *decode(char *text)
{
    char *to = text;

    for (const char *at = text; *at != '\0'; at++, to++) {
        int high, low;

        if (*at != '%') {
            *to = *at;
            continue;
        }
        high = hex_value(at[1]);
        low = high < 0 ? -1 : hex_value(at[2]);
        if (low < 0)
            return "a '%' that two hexadecimal digits do not follow (write %25 for '%')";
        if (high == 0 && low == 0)
            return "a %00";
        *to = (char)(high * 16 + low);
        at += 2;
    }
    *to = '\0';
    return NULL;
}

/* Split "name=value" in place. Only a name made of harmless characters is ever quoted: it may be a piece of a password
 * with an unescaped '?'. */
static verrou_status split_setting(const char *scheme, char *text, verrou_setting *setting, verrou_error *err)
{
    size_t len = 0;
    const char *wrong;

    while (is_name(text[len]))
        len++;
    if (text[len] != '=')
        return verrou__fail(err, VERROU_ECONFIG,
                            "store address %s: after the '?' come settings NAME=VALUE joined by '&'", scheme);
    if (len == 0)
        return verrou__fail(err, VERROU_ECONFIG, "store address %s: a setting without a name", scheme);
    if (len > MAX_SETTING_NAME)
        return verrou__fail(err, VERROU_ECONFIG, "store address %s: the name of a setting is longer than %d bytes",
                            scheme, MAX_SETTING_NAME);

    text[len] = '\0';
    wrong = decode(text + len + 1);
    if (wrong != NULL)
        return verrou__fail(err, VERROU_ECONFIG, "store address %s: the value of the setting \"%s\" has %s", scheme,
                            text, wrong);
    setting->name = text;
    setting->value = text + len + 1;
    return VERROU_OK;
}

static verrou_status split_settings(verrou_url *url, verrou_setting *settings, char *query, verrou_error *err)
{
    while (query != NULL && *query != '\0') {
        char *end = strchr(query, '&');
        verrou_status status;

        if (end != NULL)
            *end++ = '\0';
        status = split_setting(url->scheme, query, &settings[url->count], err);
        if (status != VERROU_OK)
            return status;
        url->count++;
        query = end;
        if (query != NULL && *query == '\0')
            return verrou__fail(err, VERROU_ECONFIG, "store address %s: it ends with '&'", url->scheme);
    }
    return VERROU_OK;
}

static size_t count_settings(const char *text)
{
    const char *at = strchr(text, '?');
    size_t count = 0;

    for (; at != NULL; at = strchr(at + 1, '&'))
        count++;
    return count;
}

/* ---- the pieces of a network address ---- */

/* A number from 1 to 65535, else 0. */
static int read_port(const char *text)
{
    int port = 0;

    for (; is_digit(*text) && port <= 65535; text++)
        port = port * 10 + (*text - '0');
    return *text == '\0' && port <= 65535 ? port : 0;
}

/* Cut "host", "host:port" or "[host]:port" in place. The message gives its place in the list, not its text: that may be
 * "user:password" without the '@'. */
static verrou_status split_endpoint(const char *scheme, char *text, size_t place, verrou_endpoint *endpoint,
                                    verrou_error *err)
{
    char *end = text + strcspn(text, ":");
    char *port = NULL;

    if (*text == '[') {
        end = strchr(++text, ']');
        if (end == NULL)
            return verrou__fail(err, VERROU_ECONFIG, "store address %s: host %zu has a '[' without a ']'", scheme,
                                place);
        *end++ = '\0';
        if (*end != '\0' && *end != ':')
            return verrou__fail(err, VERROU_ECONFIG,
                                "store address %s: behind the ']' of host %zu only a port may stand, \":PORT\"", scheme,
                                place);
    }
    if (*end == ':')
        port = end + 1;
    *end = '\0';
    if (*text == '\0')
        return verrou__fail(err, VERROU_ECONFIG, "store address %s: host %zu is empty", scheme, place);

    (void)decode(text);
    endpoint->host = text;
    endpoint->port = 0;
    if (port != NULL) {
        (void)decode(port);
        endpoint->port = read_port(port);
        if (endpoint->port == 0)
            return verrou__fail(err, VERROU_ECONFIG,
                                "store address %s: the port of host %zu is no number from 1 to 65535 (an IPv6 address "
                                "stands in [brackets])",
                                scheme, place);
    }
    return VERROU_OK;
}

static verrou_status split_endpoints(verrou_url *url, verrou_endpoint *endpoints, char *text, verrou_error *err)
{
    verrou_status status = VERROU_OK;

    if (*text == '\0')
        return VERROU_OK; /* a socket in the file system: there is only a path */
    while (status == VERROU_OK && text != NULL) {
        char *comma = strchr(text, ',');

        if (comma != NULL)
            *comma++ = '\0';
        status = split_endpoint(url->scheme, text, url->endpoint_count + 1, &endpoints[url->endpoint_count], err);
        url->endpoint_count++;
        text = comma;
    }
    return status;
}

/* The end of "user:password@host:port" behind the "//". */
static const char *authority_end(const char *rest)
{
    return rest + 2 + strcspn(rest + 2, "/?");
}

/* Cut up and decode another copy of the rest, which was decoded as a whole before: its escapes are known to be good. No
 * separator can stand inside of one. */
static verrou_status split_pieces(verrou_url *url, verrou_endpoint *endpoints, char *rest, verrou_error *err)
{
    char *authority = rest + 1;
    char *path, *at, *colon;
    size_t len;

    if (strncmp(rest, "//", 2) != 0)
        return verrou__fail(err, VERROU_ECONFIG, "store address %s: \"//\" is missing, it begins with \"%s://\"",
                            url->scheme, url->scheme);
    path = rest + 2 + strcspn(rest + 2, "/");
    if (*path == '/') {
        len = (size_t)(path - rest) - 2;
        memmove(authority, authority + 1, len); /* room for its NUL, the path keeps its '/' */
        authority[len] = '\0';
        (void)decode(path);
        url->path = path;
    } else {
        authority++;
    }

    at = strrchr(authority, '@');
    if (at == NULL)
        return split_endpoints(url, endpoints, authority, err);
    *at = '\0';
    colon = strchr(authority, ':');
    if (colon != NULL) {
        *colon = '\0';
        (void)decode(colon + 1);
        url->password = colon + 1;
    }
    (void)decode(authority);
    url->user = authority;
    return split_endpoints(url, endpoints, at + 1, err);
}

/* ---- the whole ---- */

/* Refuse passwords of which it is not certain where they end. */
static verrou_status check_password(const char *text, size_t scheme_len, bool network, verrou_error *err)
{
    const char *rest = text + scheme_len + 1;
    const char *mark = text + strcspn(text, "?");
    range password = find_password(rest, mark);

    if (password.start == NULL)
        return VERROU_OK;
    if (password.end > mark)
        return verrou__fail(err, VERROU_ECONFIG, "store address %.*s: write %%3F for a '?' in the password",
                            (int)scheme_len, text);
    if (network && password.end > authority_end(rest))
        return verrou__fail(err, VERROU_ECONFIG,
                            "store address %.*s: write %%2F for a '/' in the password, and %%40 for a '@' in the path",
                            (int)scheme_len, text);
    return VERROU_OK;
}

static size_t count_commas(const char *text)
{
    size_t count = 0;

    for (text = strchr(text, ','); text != NULL; text = strchr(text + 1, ','))
        count++;
    return count;
}

/*
 * One block: the struct, the lists, the text as given, a copy of it that is cut up and decoded, and for networks another one for the
 * pieces.
 */
static verrou_status parse(const char *text, bool network, verrou_url **ret_url, verrou_error *err)
{
    verrou_url *url = NULL;
    verrou_endpoint *endpoints;
    verrou_setting *settings;
    size_t scheme_len, size, settings_size, endpoints_size;
    char *copy, *query;
    const char *wrong;
    verrou_status status;

    if (text == NULL)
        return verrou__fail(err, VERROU_ECONFIG, "store address: missing");
    scheme_len = scheme_length(text, err);
    if (scheme_len == 0)
        return VERROU_ECONFIG;
    status = check_password(text, scheme_len, network, err);
    if (status != VERROU_OK)
        return status;

    size = strlen(text) + 1;
    settings_size = count_settings(text) * sizeof(*settings);
    endpoints_size = network ? (count_commas(text) + 1) * sizeof(*endpoints) : 0;
    url = verrou__malloc(sizeof(*url) + settings_size + endpoints_size + (network ? 3 : 2) * size);
    if (url == NULL)
        return verrou__nomem(err);
    settings = (verrou_setting *)(url + 1);
    endpoints = (verrou_endpoint *)((char *)settings + settings_size);
    copy = (char *)endpoints + endpoints_size;
    memcpy(copy, text, size);
    copy[scheme_len] = '\0';
    *url = (verrou_url){.text = memcpy(copy + size, text, size),
                        .scheme = copy,
                        .rest = copy + scheme_len + 1,
                        .settings = settings,
                        .endpoints = endpoints};

    query = strchr(copy + scheme_len + 1, '?');
    if (query != NULL)
        *query++ = '\0';
    if (network)
        strcpy(copy + 2 * size, url->rest);
    wrong = decode(copy + scheme_len + 1);
    if (wrong != NULL) {
        status = verrou__fail(err, VERROU_ECONFIG, "store address %s: it has %s", url->scheme, wrong);
        goto done;
    }
    status = split_settings(url, settings, query, err);
    if (status == VERROU_OK && network)
        status = split_pieces(url, endpoints, copy + 2 * size, err);
    if (status != VERROU_OK)
        goto done;

    *ret_url = url;
    url = NULL;
done:
    verrou__free(url);
    return status;
}

verrou_status verrou__url_parse(const char *text, verrou_url **ret_url, verrou_error *err)
{
    return parse(text, false, ret_url, err);
}

verrou_status verrou__url_parse_network(const char *text, verrou_url **ret_url, verrou_error *err)
{
    return parse(text, true, ret_url, err);
}

const char *verrou__url_setting(const verrou_url *url, const char *name)
{
    for (size_t i = 0; i < url->count; i++)
        if (strcmp(url->settings[i].name, name) == 0)
            return url->settings[i].value;
    return NULL;
}

static bool in_list(const char *const *list, const char *name)
{
    for (; list != NULL && *list != NULL; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

verrou_status verrou__url_check_settings(const verrou_url *url, const char *const *known, const char *const *also_known,
                                         verrou_error *err)
{
    for (size_t i = 0; i < url->count; i++) {
        const char *name = url->settings[i].name;

        if (!in_list(known, name) && !in_list(also_known, name))
            return verrou__fail(err, VERROU_ECONFIG, "store address %s: unknown setting \"%s\"", url->scheme, name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(url->settings[j].name, name) == 0)
                return verrou__fail(err, VERROU_ECONFIG, "store address %s: the setting \"%s\" is given twice",
                                    url->scheme, name);
    }
    return VERROU_OK;
}

/* ---- redaction ---- */

/* Whether the name, in any case, speaks of a secret: PWD, sslpassword, secret_access_key, session-token, ... */
static bool names_secret(const char *name, size_t len)
{
    static const char *const words[] = {"password", "passwd", "passphrase", "pwd", "secret", "token", "credential"};

    for (size_t w = 0; w < sizeof(words) / sizeof(words[0]); w++) {
        size_t word_len = strlen(words[w]);

        for (size_t at = 0; at + word_len <= len; at++) {
            size_t same = 0;

            while (same < word_len && to_lower(name[at + same]) == words[w][same])
                same++;
            if (same == word_len)
                return true;
        }
    }
    return false;
}

/* Whether what follows the '?' can be settings; if not, the '?' is taken for a part of a password. */
static bool looks_like_settings(const char *at)
{
    for (;;) {
        const char *name = at;

        while (is_name(*at))
            at++;
        if (at == name || *at != '=')
            return false;
        at += strcspn(at, "&");
        if (*at == '\0')
            return true;
        at++;
    }
}

/* Where the value ends that starts here. Before the settings that is at a ';' (ODBC) outside of {braces, with }} for a
 * brace}. */
static const char *value_end(const char *at, const char *query)
{
    const char *end;

    if (at > query)
        return at + strcspn(at, "&");
    if (*at == '{')
        for (at++; *at != '\0' && (*at != '}' || *++at == '}'); at++)
            ;
    end = at + strcspn(at, ";");
    return at <= query && end > query && looks_like_settings(query + 1) ? query : end;
}

/* The value of the next NAME=VALUE from `at` on whose name speaks of a secret. */
static range find_secret(const char *text, const char *at, const char *query)
{
    range found = {NULL, NULL};

    for (at = strchr(at, '='); at != NULL; at = strchr(at + 1, '=')) {
        const char *name_end = at;
        const char *name;

        while (name_end > text && name_end[-1] == ' ')
            name_end--;
        name = name_end;
        while (name > text && (is_name(name[-1]) || name[-1] == '%'))
            name--;
        if (!names_secret(name, (size_t)(name_end - name)))
            continue;
        found.start = at + 1;
        while (*found.start == ' ')
            found.start++;
        found.end = value_end(found.start, query);
        break;
    }
    return found;
}

static char *put(char *out, const char *from, const char *end)
{
    if (end > from)
        memcpy(out, from, (size_t)(end - from));
    return end > from ? out + (end - from) : out;
}

verrou_status verrou__url_redact(const char *text, char **ret_text, verrou_error *err)
{
    static const char stars[] = "***";
    size_t len = strlen(text);
    const char *colon = strchr(text, ':');
    const char *query = text + strcspn(text, "?");
    const char *from = text;
    range password = {NULL, NULL};
    range secret;
    char *out, *to;

    /* Every hidden value follows a ':' or '='; none grows by more than the stars. */
    out = verrou__malloc(len * sizeof(stars) + 1);
    if (out == NULL)
        return verrou__nomem(err);
    to = out;

    if (colon != NULL)
        password = find_password(colon + 1, query);
    if (password.start != NULL) {
        to = put(to, from, password.start);
        to = put(to, stars, stars + 3);
        from = password.end;
    }
    for (secret = find_secret(text, from, query); secret.start != NULL; secret = find_secret(text, from, query)) {
        to = put(to, from, secret.start);
        if (secret.end > secret.start)
            to = put(to, stars, stars + 3);
        from = secret.end > from ? secret.end : from;
        if (*from == '\0')
            break;
    }
    to = put(to, from, text + len);
    *to = '\0';
    *ret_text = out;
    return VERROU_OK;
}
