#!/bin/sh
# certificates.sh - makes the certificates of the TLS tests in a folder, all valid for two days:
#
#     ca.pem             the authority that tests trust          wrong-ca.pem       one that has signed nothing here
#     server.pem, .key   for localhost, 127.0.0.1 and ::1        expired.pem, .key  the same, but no longer valid
#     other.pem, .key    for another name                        client.pem, .key   what a client shows
#
# `openssl ca` and not `openssl x509`: only there can the dates be in the past with every release of openssl.
set -eu
cd "$1"

cat >ca.conf <<'END'
[ca]
default_ca = authority
[authority]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
commonName = unused
[authority_extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[other]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:other.example
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
END
: >index
echo 1000 >serial

request() # FILE NAME [OPTION...]
{
    file=$1 name=$2
    shift 2
    openssl req -config ca.conf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$file.key" -subj "/CN=$name" "$@"
}

authority() # FILE NAME
{
    request "$1" "$2" -x509 -days 2 -extensions authority_extensions -out "$1.pem"
}

certificate() # FILE NAME EXTENSIONS [OPTION...]
{
    file=$1 name=$2 extensions=$3
    shift 3
    request "$file" "$name" -new -out "$file.csr"
    openssl ca -config ca.conf -batch -notext -cert ca.pem -keyfile ca.key -in "$file.csr" -extensions "$extensions" -out "$file.pem" "$@"
}

authority ca "Authority of the tests"
authority wrong-ca "Another authority"
certificate server localhost server -days 2
certificate other other.example other -days 2
certificate client client client -days 2
certificate expired localhost server -startdate 20200101000000Z -enddate 20200102000000Z
