//! stead-dns.
