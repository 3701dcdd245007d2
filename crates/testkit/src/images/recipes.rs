//! The images, as data.

use sha2::{Digest, Sha256};

/// One image under one or more names.
#[derive(Debug)]
pub struct Recipe {
    /// Full names as a registry sees them, without the host for Docker Hub: `library/redis:6.2-alpine`.
    pub names: &'static [&'static str],
    /// Debian packages; the libraries that they depend on come along.
    pub packages: &'static [&'static str],
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

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every image of the seeds' exercises.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        names: &["library/busybox:latest", "library/busybox:1.28", "library/busybox:1.35", "library/busybox:1.36"],
        packages: &["busybox-static"],
        files: &[],
        directories: &[],
        environment: &[PATH],
        entrypoint: &[],
        command: &["sh"],
        working_dir: "",
        volumes: &[],
        ports: &[],
        stop_signal: "",
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
        stop_signal: "",
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
        entrypoint: &[],
        command: &["nginx", "-g", "daemon off;"],
        working_dir: "",
        volumes: &[],
        ports: &["80/tcp"],
        stop_signal: "SIGQUIT",
    },
];

/// Changes when a recipe does, so that stale layouts are built anew.
pub(super) fn fingerprint() -> String {
    let digest = Sha256::digest(format!("{RECIPES:?}").as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
