#!/bin/sh
# Prints new random secrets for docker-compose.yml; hexadecimal, as they become parts of addresses.
set -eu
umask 077
for name in POSTGRES_PASSWORD REDIS_PASSWORD S3_SECRET FLOWER_PASSWORD; do
    printf '%s=%s\n' "$name" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
done
