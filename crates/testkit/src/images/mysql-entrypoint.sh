#!/bin/sh
# Fills an empty data directory as the well-known image does, from MYSQL_ROOT_PASSWORD, MYSQL_DATABASE, MYSQL_USER and MYSQL_PASSWORD.
set -e
[ "${1#-}" = "$1" ] || set -- mysqld "$@"
if [ "$1" != mysqld ]; then
    exec "$@"
fi

data=/var/lib/mysql
if [ ! -e "$data/.filled" ]; then
    if [ -z "$MYSQL_ROOT_PASSWORD$MYSQL_ALLOW_EMPTY_PASSWORD" ]; then
        echo "[ERROR] [Entrypoint]: Database is uninitialized and password option is not specified" >&2
        echo "    You need to specify one of MYSQL_ROOT_PASSWORD and MYSQL_ALLOW_EMPTY_PASSWORD" >&2
        exit 1
    fi
    # A start that was cut off half-way begins anew.
    rm -rf "$data"/mysql "$data"/ib* "$data"/aria* "$data"/undo*
    chown mysql:mysql "$data"
    cd /usr/share/mysql
    {
        echo "CREATE DATABASE mysql;"
        echo "USE mysql;"
        cat mysql_system_tables.sql mysql_performance_tables.sql
    } | mysqld --bootstrap --silent-startup --skip-log-bin
    touch "$data/.filled"
fi

# Every start makes sure of the accounts and leaves alone what is there.
init=/run/mysqld/init.sql
: > "$init"
chown mysql "$init"
chmod 600 "$init"
{
    for host in localhost %; do
        echo "CREATE USER IF NOT EXISTS 'root'@'$host' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "GRANT ALL ON *.* TO 'root'@'$host' WITH GRANT OPTION;"
    done
    [ -z "$MYSQL_DATABASE" ] || echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"
    if [ -n "$MYSQL_USER" ]; then
        echo "CREATE USER IF NOT EXISTS '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';"
        [ -z "$MYSQL_DATABASE" ] || echo "GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';"
    fi
} > "$init"
exec "$@" --init-file="$init"
