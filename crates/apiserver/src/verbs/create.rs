//! Create: decode, name, admit, put if absent.

use http::StatusCode;
use serde_json::Value;
use stead_api::convert;
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, FieldErrors, Path};
use stead_store::{Entry, Expect};

use super::write::{self, Outcome};
use super::{Target, render};
use crate::chain::Call;
use crate::decode;
use crate::negotiate;
use crate::objects;
use crate::options::WriteOptions;
use crate::response::{self, Answer};
use crate::server::ApiServer;

/// Tries of a generated name before the caller hears of the clash (upstream's number).
const GENERATED_NAME_TRIES: usize = 8;
/// Longest beginning of a generated name, so that the whole fits 63 characters.
const GENERATED_BASE_BYTES_MAX: usize = 58;
const GENERATED_SUFFIX_LENGTH: usize = 5;

pub(crate) async fn create(server: &ApiServer, target: Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let (mut object, mut warnings) = decode::object(target.kind, call, &options)?;
    let kind = target.kind;
    decode::manage_created(kind, &mut object, &options, call);
    let created = make(server, target, object, &options, call).await?;
    warnings.extend(created.warnings);
    let mut answer = render::object(StatusCode::CREATED, form, kind, &created.entry, call)?;
    response::warn(answer.headers_mut(), &warnings);
    Ok(answer)
}

/// A stored object and what admission had to say.
pub(crate) struct Created {
    pub(crate) entry: Entry,
    pub(crate) warnings: Vec<String>,
}

/// Creates a decoded object; who manages its fields is noted in it.
pub(crate) async fn make(
    server: &ApiServer,
    mut target: Target,
    mut object: Value,
    options: &WriteOptions,
    call: &Call,
) -> Result<Created, ApiError> {
    place(&mut target, &mut object)?;
    let base = object["metadata"]["generateName"].as_str().unwrap_or("").to_owned();
    let generated = target.name.is_empty() && !base.is_empty();
    let tries = if generated { GENERATED_NAME_TRIES } else { 1 };
    let mut left = tries;
    loop {
        if generated {
            target.name = generate(&base);
            object["metadata"]["name"] = target.name.clone().into();
        }
        left -= 1;
        match admit_and_put(server, &target, object.clone(), options, call).await {
            Err(error) if generated && left > 0 && error.reason == Reason::AlreadyExists => {}
            done => return done,
        }
    }
}

async fn admit_and_put(
    server: &ApiServer,
    target: &Target,
    mut object: Value,
    options: &WriteOptions,
    call: &Call,
) -> Result<Created, ApiError> {
    let kind = target.kind.storage_kind();
    let now = crate::source::now();
    let metadata = &mut object["metadata"];
    metadata["uid"] = crate::source::uuid().to_string().into();
    metadata["creationTimestamp"] = write::seconds(now).into();
    let mut object = convert::to_storage(target.kind, object);
    let nameless = target.name.is_empty();
    let _turn = write::quota_turn(server, &target.namespace).await;
    let warnings =
        write::admit(server, &call.user, options.dry_run, |ctx| stead_admission::create(kind, &mut object, ctx))?;
    if nameless {
        // Validation says more when it finds more; a key without a name there cannot be.
        let mut errors = FieldErrors::default();
        errors.required(&Path::new("metadata").child("name"), "name or generateName is required");
        return Err(ApiError::invalid(target.kind, "", &errors));
    }
    let put = write::Put { kind, key: target.key(), expect: Expect::Absent, dry_run: options.dry_run };
    match write::put(server, put, objects::encode(&object)).await? {
        Outcome::Done(entry) => Ok(Created { entry, warnings }),
        Outcome::Unmet => {
            write::release(server, kind, &object, None, options.dry_run);
            Err(ApiError::already_exists(target.kind, &target.name))
        }
    }
}

/// Makes URL and object agree on the place and the name.
fn place(target: &mut Target, object: &mut Value) -> Result<(), ApiError> {
    let metadata = &mut object["metadata"];
    if metadata["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
        return Err(ApiError::new(Reason::Unknown, "resourceVersion should not be set on objects to be created"));
    }
    write::check_namespace(target, metadata)?;
    target.name = metadata["name"].as_str().unwrap_or("").to_owned();
    if target.name.contains('/') {
        let mut errors = FieldErrors::default();
        errors.invalid(&Path::new("metadata").child("name"), &target.name, "may not contain '/'");
        return Err(ApiError::invalid(target.kind, &target.name, &errors));
    }
    Ok(())
}

fn generate(base: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE_BYTES_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], write::suffix(GENERATED_SUFFIX_LENGTH))
}
