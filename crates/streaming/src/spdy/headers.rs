//! SPDY/3 header blocks: name-value pairs under one zlib stream per direction with a preset dictionary.
//!
//! Source: draft-mbelshe-httpbis-spdy-00, section 2.6.10.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// A header block larger than this, once unpacked, is refused.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// The words that the dictionary begins with, each with its length in four bytes before it.
const DICTIONARY_WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows the words, without lengths.
const DICTIONARY_TAIL: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden",
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,",
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in DICTIONARY_WORDS {
        push_counted(&mut out, word.as_bytes());
    }
    out.extend_from_slice(DICTIONARY_TAIL.as_bytes());
    out
}

/// Packs header blocks of one direction of one connection. Blocks depend on the ones before them.
pub(crate) struct HeaderPacker(Compress);

impl HeaderPacker {
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).map_err(std::io::Error::other)?;
        Ok(Self(zlib))
    }

    pub(crate) fn pack(&mut self, headers: &[(String, String)]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&length(headers.len()));
        for (name, value) in headers {
            push_counted(&mut plain, name.as_bytes());
            push_counted(&mut plain, value.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            let before = self.0.total_in();
            out.reserve(256);
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(std::io::Error::other)?;
            rest = &rest[usize::try_from(self.0.total_in() - before).expect("no more is read than was given")..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

/// Unpacks header blocks of one direction of one connection.
pub(crate) struct HeaderUnpacker(Decompress);

impl HeaderUnpacker {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn unpack(&mut self, block: &[u8]) -> std::io::Result<Vec<(String, String)>> {
        let plain = self.inflate(block)?;
        parse(&plain).ok_or_else(|| std::io::Error::other("malformed SPDY header block"))
    }

    fn inflate(&mut self, mut block: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (read_before, written_before) = (self.0.total_in(), self.0.total_out());
            if out.len() == out.capacity() {
                out.reserve(1024);
            }
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - read_before).expect("no more is read than was given");
            block = &block[read..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(std::io::Error::other)?;
                    continue;
                }
                Err(error) => return Err(std::io::Error::other(error)),
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if out.len() > HEADER_BLOCK_BYTES_MAX {
                return Err(std::io::Error::other("SPDY header block is too large"));
            }
            let stuck = read == 0 && self.0.total_out() == written_before;
            if block.is_empty() && out.len() < out.capacity() || stuck && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

fn parse(plain: &[u8]) -> Option<Vec<(String, String)>> {
    let mut at = 0;
    let mut number = |plain: &[u8]| {
        let bytes = plain.get(at..at + 4)?;
        at += 4;
        Some((u32::from_be_bytes(bytes.try_into().ok()?) as usize, at))
    };
    let (count, mut position) = number(plain)?;
    if count > HEADER_BLOCK_BYTES_MAX / 8 {
        return None;
    }
    let mut text = || {
        let bytes = plain.get(position..position + 4)?;
        let size = u32::from_be_bytes(bytes.try_into().ok()?) as usize;
        position += 4;
        let text = plain.get(position..position.checked_add(size)?)?;
        position += size;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    (0..count).map(|_| Some((text()?, text()?))).collect()
}

fn push_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()));
    out.extend_from_slice(bytes);
}

fn length(size: usize) -> [u8; 4] {
    u32::try_from(size).expect("header blocks are far below 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        let bytes = dictionary();
        assert_eq!(bytes.len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in bytes {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_come_back_one_after_the_other() {
        let mut packer = HeaderPacker::new().unwrap();
        let mut unpacker = HeaderUnpacker::new();
        for n in 0..50 {
            let headers = vec![
                ("streamtype".to_owned(), "stdin".to_owned()),
                ("n".to_owned(), n.to_string()),
                ("long".to_owned(), "x".repeat(n * 97)),
            ];
            let block = packer.pack(&headers).unwrap();
            assert_eq!(unpacker.unpack(&block).unwrap(), headers);
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(HeaderUnpacker::new().unpack(&[1, 2, 3, 4, 5]).is_err());
    }
}
