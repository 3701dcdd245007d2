//! The frame of a gRPC message: a byte for compression, four for its length, then the message.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{Code, Status};

/// Largest message that is taken, as gRPC's own default.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;
const HEAD_BYTES: usize = 5;

pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut out).expect("there is room for it");
    out.freeze()
}

/// # Errors
/// When there is not exactly one message of the type, uncompressed.
pub(crate) fn unframe<M: Message + Default>(body: &Bytes) -> Result<M, Status> {
    let broken = |what: &str| Status::new(Code::Internal, format!("not a gRPC message: {what}"));
    if body.len() < HEAD_BYTES {
        return Err(broken("it is too short"));
    }
    if body[0] != 0 {
        return Err(broken("it is compressed"));
    }
    let length = u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize;
    if body.len() != HEAD_BYTES + length {
        return Err(broken("its length is not what it says"));
    }
    M::decode(body.slice(HEAD_BYTES..)).map_err(|error| broken(&error.to_string()))
}
