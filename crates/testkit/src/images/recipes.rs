//! The images, as data.

use sha2::{Digest, Sha256};

/// One image under one or more names.
#[derive(Debug)]
pub struct Recipe {
    /// Full names as a registry sees them, without the host for Docker Hub: `library/redis:6.2-alpine`.
    pub names: &'static [&'static str],
    /// Debian packages; the libraries that they depend on come along.
    pub packages: &'static [&'static str],
    /// The packages are all that is wanted: no library comes along by itself.
    pub complete: bool,
    /// Files of the packages that are left out.
    pub without: &'static [&'static str],
    /// Path, permission bits, content.
    pub files: &'static [(&'static str, u32, &'static str)],
    /// Empty directories: path, permission bits.
    pub directories: &'static [(&'static str, u32)],
    pub environment: &'static [&'static str],
    pub entrypoint: &'static [&'static str],
    pub command: &'static [&'static str],
    pub working_dir: &'static str,
    pub volumes: &'static [&'static str],
    pub ports: &'static [&'static str],
    pub stop_signal: &'static str,
}

/// What most images leave as it is.
const PLAIN: Recipe = Recipe {
    names: &[],
    packages: &[],
    complete: false,
    without: &[],
    files: &[],
    directories: &[],
    environment: &[PATH],
    entrypoint: &[],
    command: &[],
    working_dir: "",
    volumes: &[],
    ports: &[],
    stop_signal: "",
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every image of the seeds' exercises.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        names: &["library/busybox:latest", "library/busybox:1.28", "library/busybox:1.35", "library/busybox:1.36"],
        packages: &["busybox-static"],
        command: &["sh"],
        ..PLAIN
    },
    Recipe {
        names: &["library/redis:6.2-alpine", "library/redis:5-alpine", "library/redis:7.0", "library/redis:latest"],
        packages: &["busybox-static", "redis-server", "redis-tools"],
        // Without a configuration redis refuses clients from other hosts: the well-known image turns that off as well.
        files: &[(
            "usr/local/bin/docker-entrypoint.sh",
            0o755,
            "#!/bin/sh\nset -e\n[ \"${1#-}\" = \"$1\" ] && [ \"${1%.conf}\" = \"$1\" ] || set -- redis-server \"$@\"\n\
             [ \"$1\" = redis-server ] && set -- \"$@\" --protected-mode no\nexec \"$@\"\n",
        )],
        directories: &[("data", 0o755)],
        environment: &[PATH, "REDIS_VERSION=7.0.15"],
        entrypoint: &["docker-entrypoint.sh"],
        command: &["redis-server"],
        working_dir: "/data",
        volumes: &["/data"],
        ports: &["6379/tcp"],
        ..PLAIN
    },
    Recipe {
        names: &[
            "library/nginx:1.21",
            "library/nginx:1.16",
            "library/nginx:1.22",
            "library/nginx:alpine",
            "library/nginx:latest",
            "docker.io/library/nginx:1.16",
            "docker.io/library/nginx:alpine",
            "docker.io/library/nginx:latest",
        ],
        packages: &["busybox-static", "nginx", "nginx-common", "curl"],
        files: &[(
            "etc/nginx/nginx.conf",
            0o644,
            "worker_processes 1;\nerror_log /dev/stderr notice;\npid /run/nginx.pid;\nevents { worker_connections 256; }\n\
             http {\n  include /etc/nginx/mime.types;\n  default_type application/octet-stream;\n  access_log /dev/stdout;\n\
             server {\n    listen 80;\n    root /usr/share/nginx/html;\n    index index.html;\n  }\n}\n",
        )],
        directories: &[("var/lib/nginx", 0o755), ("var/log/nginx", 0o755), ("run", 0o755)],
        environment: &[PATH, "NGINX_VERSION=1.22.1"],
        command: &["nginx", "-g", "daemon off;"],
        ports: &["80/tcp"],
        stop_signal: "SIGQUIT",
        ..PLAIN
    },
    Recipe {
        names: &["library/mysql:8.0", "library/mysql:8.4"],
        packages: &["busybox-static", "mariadb-server-core", "mariadb-client-core"],
        without: &[
            "usr/bin/innochecksum",
            "usr/bin/mariadb-check",
            "usr/bin/mariadb-upgrade",
            "usr/bin/resolveip",
            "usr/share/mysql/fill_help_tables.sql",
        ],
        files: &[
            ("usr/local/bin/docker-entrypoint.sh", 0o755, include_str!("mysql-entrypoint.sh")),
            (
                "etc/mysql/my.cnf",
                0o644,
                "[mysqld]\nuser = mysql\ndatadir = /var/lib/mysql\nsocket = /run/mysqld/mysqld.sock\nskip-name-resolve\n\
                 loose-innodb-use-native-aio = 0\n[client]\nsocket = /run/mysqld/mysqld.sock\n!includedir /etc/mysql/conf.d/\n",
            ),
        ],
        directories: &[("etc/mysql/conf.d", 0o755), ("var/lib/mysql", 0o777), ("run/mysqld", 0o777)],
        environment: &[PATH, "MYSQL_MAJOR=8.0"],
        entrypoint: &["docker-entrypoint.sh"],
        command: &["mysqld"],
        volumes: &["/var/lib/mysql"],
        ports: &["3306/tcp"],
        ..PLAIN
    },
    Recipe {
        names: &["coreos/etcd:v3.4.23", "coreos/etcd:v3.4.24"],
        packages: &["busybox-static", "etcd-server", "etcd-client", "libc6", "libc-bin"],
        complete: true,
        command: &["etcd"],
        ports: &["2379/tcp", "2380/tcp"],
        ..PLAIN
    },
    Recipe {
        names: &["library/zookeeper:3.8", "library/zookeeper:3.8.0"],
        packages: &[
            "busybox-static",
            "openjdk-17-jre-headless",
            "libc6",
            "libc-bin",
            "libstdc++6",
            "libgcc-s1",
            "zlib1g",
            "libzookeeper-java",
            "libslf4j-java",
            "libcommons-cli-java",
            "libdropwizard-metrics-java",
            "libsnappy-java",
        ],
        complete: true,
        // What draws, compiles and debugs: a sixth of the runtime.
        without: &[
            "usr/lib/jvm/java-17-openjdk-amd64/lib/ct.sym",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/libawt.so",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/libfontmanager.so",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/libjsvml.so",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/libmlib_image.so",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/libsaproc.so",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/server/classes_nocoops.jsa",
        ],
        files: &[
            ("docker-entrypoint.sh", 0o755, include_str!("zookeeper-entrypoint.sh")),
            ("apache-zookeeper/bin/zkServer.sh", 0o755, ZOOKEEPER_SERVER),
            ("apache-zookeeper/bin/zkCli.sh", 0o755, ZOOKEEPER_CLIENT),
        ],
        directories: &[("conf", 0o755), ("data", 0o755), ("datalog", 0o755), ("logs", 0o755)],
        environment: &[
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/apache-zookeeper/bin:/usr/lib/jvm/java-17-openjdk-amd64/bin",
            "ZOO_CONF_DIR=/conf",
            "ZOO_DATA_DIR=/data",
            "ZOO_DATA_LOG_DIR=/datalog",
            "ZOO_TICK_TIME=2000",
            "ZOO_INIT_LIMIT=5",
            "ZOO_SYNC_LIMIT=2",
            "ZOO_STANDALONE_ENABLED=true",
            "CLASSPATH=/conf:/usr/share/java/zookeeper.jar:/usr/share/java/zookeeper-jute.jar:/usr/share/java/slf4j-api.jar:\
             /usr/share/java/slf4j-simple.jar:/usr/share/java/commons-cli.jar:/usr/share/java/metrics-core.jar:\
             /usr/share/java/snappy-java.jar",
        ],
        entrypoint: &["/docker-entrypoint.sh"],
        command: &["zkServer.sh", "start-foreground"],
        working_dir: "/apache-zookeeper",
        volumes: &["/data", "/datalog", "/logs"],
        ports: &["2181/tcp", "2888/tcp", "3888/tcp", "8080/tcp"],
        ..PLAIN
    },
];

const ZOOKEEPER_SERVER: &str = "#!/bin/sh\n\
     exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.logFile=System.out $JVMFLAGS $SERVER_JVMFLAGS \\\n\
     org.apache.zookeeper.server.quorum.QuorumPeerMain \"$ZOO_CONF_DIR/zoo.cfg\"\n";
const ZOOKEEPER_CLIENT: &str = "#!/bin/sh\n\
     exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=error $CLIENT_JVMFLAGS \\\n\
     org.apache.zookeeper.ZooKeeperMain \"$@\"\n";

/// Changes when one of the recipes does, so that what was made of it is made anew.
pub(super) fn fingerprint(recipes: &[Recipe]) -> String {
    let digest = Sha256::digest(format!("{FORM} {recipes:?}").as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// To be raised when images are made of the same recipes in another way.
const FORM: u32 = 3;
