//! The schema of every type: fields, shapes, and how lists and maps merge.
//!
//! It is generated (`cargo xtask codegen`, then `codegen-zeros`) into `data/schema.txt` and parsed at first use; names are slices
//! of that text, so that the parsed form is small. The grammar, line by line:
//!
//! ```text
//! =NAME [^] [GROUP/VERSION/KIND]      a type; ^: its maps merge as a whole
//! FIELD SHAPE [!] [% | -] [^] [@LIST] [~PATCH[/KEY]] [=DEFAULT] [:GOTYPE]
//! ```
//! `!` is required; `%` is written when it is zero, `-` is left out then; `@a` `@s` `@mKEYS` an atomic list, a set, a list that is a map by these keys; `~m` `~r` `~k` `~mk` the
//! strategies merge, replace, retainKeys, merge and retainKeys of a strategic merge patch, with the key of a list's items.
//! A shape is one letter, `[SHAPE` for a list, `{SHAPE` for a map with string keys, or `#NAME` for a type. In names `/` stands
//! for `io.k8s.api.` and `+` for `io.k8s.apimachinery.pkg.apis.`. Descriptions are apart, compressed: see [`descriptions`].

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use crate::Kind;

const TEXT: &str = include_str!("../data/schema.txt");
const DESCRIPTIONS: &[u8] = include_bytes!("../data/descriptions.zz");

/// Index of a type in the [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u16);

/// Index of an inner shape in the [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(u16);

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// Base64 in a string.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON value.
    Any,
    /// Any JSON object; nothing in it is unknown.
    Raw,
    /// The `fieldsV1` of server-side apply.
    Fields,
    Struct(TypeId),
    Map(ShapeId),
    List(ShapeId),
}

/// How a list merges in server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole; so are lists that say nothing.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects that these fields tell apart.
    Map(&'static [&'static str]),
}

/// How a field merges in a strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// A list is merged item by item rather than replaced.
    pub merge: bool,
    /// The patch of an object names the fields to keep.
    pub retain_keys: bool,
    /// The patch replaces the object as a whole.
    pub replace: bool,
    /// The field that tells a list's items apart; none for a list of scalars.
    pub key: Option<&'static str>,
}

/// What becomes of a field without a value, or with the zero value of its type, when an object goes through upstream's types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zero {
    /// It is what was given: Go's field is a pointer.
    #[default]
    Kept,
    /// It is left out.
    LeftOut,
    /// It is in every object: a struct by value, or a field by value without `omitempty`.
    Written,
}

/// A field of a type.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    pub zero: Zero,
    /// The object in this field merges as a whole.
    pub atomic: bool,
    pub list: ListType,
    pub patch: Patch,
    /// Default of a field that is a key of a list's items.
    pub default: Option<&'static str>,
    /// Go's name of the field's type where it is not the plain one.
    pub go: Option<&'static str>,
    line: u16,
}

/// A type: an object with fields.
#[derive(Debug)]
pub struct Type {
    /// Without the abbreviation: `io.k8s.api.core.v1.Pod`.
    short: &'static str,
    /// In alphabetical order.
    pub fields: Box<[Field]>,
    /// Objects of this type merge as a whole.
    pub atomic: bool,
    /// Group, version, kind of a type that is an object of its own.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    line: u16,
}

impl Type {
    /// The full name: `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn name(&self) -> String {
        long(self.short)
    }

    /// The abbreviated name, as the schema's text has it: `/core.v1.Pod`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.short
    }

    /// The last part of the name: `Pod`.
    #[must_use]
    pub fn last(&self) -> &'static str {
        self.short.rsplit('.').next().unwrap_or(self.short)
    }

    /// As Go's errors call it: `v1.Pod`.
    #[must_use]
    pub fn go_name(&self) -> &'static str {
        let dot = self.short.rfind('.').and_then(|last| self.short[..last].rfind('.'));
        dot.map_or(self.short, |dot| &self.short[dot + 1..])
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|index| &self.fields[index])
    }
}

/// All types.
#[derive(Debug)]
pub struct Schema {
    types: Vec<Type>,
    shapes: Vec<Shape>,
    names: HashMap<&'static str, TypeId>,
}

/// The schema of the types that this program is built with.
#[must_use]
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> =
        LazyLock::new(|| parse(TEXT).expect("the generated schema is well formed (tested)"));
    &SCHEMA
}

/// The generated data itself, for a hash of what it says.
#[must_use]
pub fn fingerprint() -> &'static [u8] {
    TEXT.as_bytes()
}

impl Schema {
    #[must_use]
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[usize::from(id.0)]
    }

    #[must_use]
    pub fn shape(&self, id: ShapeId) -> Shape {
        self.shapes[usize::from(id.0)]
    }

    /// The type of a full name: `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TypeId> {
        let short = short(name);
        self.names.get(&*short).copied()
    }

    /// The type of a kind's objects.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> TypeId {
        self.find(kind.schema).expect("every row names a type of the schema (tested)")
    }

    /// The type of an object that says `apiVersion` and `kind`; lists and options among them.
    #[must_use]
    pub fn of_object(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let index = self.types.iter().position(|t| t.kind == Some((group, version, kind)))?;
        u16::try_from(index).ok().map(TypeId)
    }

    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(index, t)| (TypeId(u16::try_from(index).unwrap_or(u16::MAX)), t))
    }

    /// As Go's errors call the shape: `[]v1.Container`, `map[string]string`, `int32`.
    #[must_use]
    pub fn go_name(&self, shape: Shape) -> String {
        match shape {
            Shape::Bool => "bool".to_owned(),
            Shape::Int32 => "int32".to_owned(),
            Shape::Int64 => "int64".to_owned(),
            Shape::Double => "float64".to_owned(),
            Shape::String | Shape::Time | Shape::MicroTime => "string".to_owned(),
            Shape::Bytes => "[]uint8".to_owned(),
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::IntOrString => "int32".to_owned(),
            Shape::Any => "interface {}".to_owned(),
            Shape::Raw => "runtime.RawExtension".to_owned(),
            Shape::Fields => "v1.FieldsV1".to_owned(),
            Shape::Struct(id) => self.get(id).go_name().to_owned(),
            Shape::Map(inner) => format!("map[string]{}", self.go_name(self.shape(inner))),
            Shape::List(inner) => format!("[]{}", self.go_name(self.shape(inner))),
        }
    }
}

/// The descriptions of all types and fields. They are unpacked by this call and go with its result.
#[derive(Debug)]
pub struct Descriptions {
    text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

/// Unpacks the descriptions (about 600 KB); meant to be dropped when the document that needs them is written.
#[must_use]
pub fn descriptions() -> Descriptions {
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(DESCRIPTIONS)
        .read_to_string(&mut text)
        .expect("the generated descriptions are well formed (tested)");
    let mut lines = vec![0];
    let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
    lines.extend(ends.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)));
    Descriptions { text, lines }
}

impl Descriptions {
    #[must_use]
    pub fn of_type(&self, of: &Type) -> String {
        self.line(of.line)
    }

    #[must_use]
    pub fn of_field(&self, of: &Field) -> String {
        self.line(of.line)
    }

    fn line(&self, line: u16) -> String {
        let at = |index: usize| self.lines.get(index).map_or(self.text.len(), |at| *at as usize);
        let line = usize::from(line);
        let text = self.text.get(at(line)..at(line + 1)).unwrap_or_default().trim_end_matches('\n');
        if !text.contains('\\') {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
                c => out.push(c),
            }
        }
        out
    }
}

fn long(short: &str) -> String {
    if let Some(rest) = short.strip_prefix('/') {
        format!("io.k8s.api.{rest}")
    } else if let Some(rest) = short.strip_prefix('+') {
        format!("io.k8s.apimachinery.pkg.apis.{rest}")
    } else {
        short.to_owned()
    }
}

fn short(name: &str) -> std::borrow::Cow<'_, str> {
    if let Some(rest) = name.strip_prefix("io.k8s.api.") {
        format!("/{rest}").into()
    } else if let Some(rest) = name.strip_prefix("io.k8s.apimachinery.pkg.apis.") {
        format!("+{rest}").into()
    } else {
        name.into()
    }
}

/// Parses the generated text. Errors name the line.
fn parse(text: &'static str) -> Result<Schema, String> {
    let type_lines = text.lines().filter_map(|line| line.strip_prefix('='));
    let mut names = HashMap::new();
    for (index, line) in type_lines.enumerate() {
        let id = TypeId(u16::try_from(index).map_err(|_| "too many types")?);
        names.insert(line.split(' ').next().unwrap_or(line), id);
    }
    let mut parser = Parser { names, shapes: Vec::new(), seen: HashMap::new() };
    let mut types: Vec<Type> = Vec::with_capacity(parser.names.len());
    let mut fields = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = u16::try_from(number).map_err(|_| "too many lines")?;
        let wrong = |what: &str| format!("schema line {}: {what}: {line}", number + 1);
        if let Some(head) = line.strip_prefix('=') {
            if let Some(last) = types.last_mut() {
                last.fields = std::mem::take(&mut fields).into_boxed_slice();
            }
            types.push(parse_type(head, number));
        } else {
            fields.push(parser.field(line, number).ok_or_else(|| wrong("not a field"))?);
        }
    }
    if let Some(last) = types.last_mut() {
        last.fields = fields.into_boxed_slice();
    }
    parser.shapes.shrink_to_fit();
    Ok(Schema { types, shapes: parser.shapes, names: parser.names })
}

fn parse_type(head: &'static str, line: u16) -> Type {
    let mut words = head.split(' ');
    let short = words.next().unwrap_or(head);
    let (mut atomic, mut kind) = (false, None);
    for word in words {
        let mut parts = word.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(version), Some(name)) => kind = Some((group, version, name)),
            _ => atomic |= word == "^",
        }
    }
    Type { short, fields: Box::default(), atomic, kind, line }
}

struct Parser {
    names: HashMap<&'static str, TypeId>,
    shapes: Vec<Shape>,
    seen: HashMap<Shape, ShapeId>,
}

impl Parser {
    fn field(&mut self, line: &'static str, number: u16) -> Option<Field> {
        let mut words = line.split(' ');
        let name = words.next()?;
        let shape = self.shape(words.next()?)?;
        let mut field = Field {
            name,
            shape,
            required: false,
            zero: Zero::Kept,
            atomic: false,
            list: ListType::Atomic,
            patch: Patch::default(),
            default: None,
            go: None,
            line: number,
        };
        for word in words {
            match word.split_at(1) {
                ("!", "") => field.required = true,
                ("%", "") => field.zero = Zero::Written,
                ("-", "") => field.zero = Zero::LeftOut,
                ("^", "") => field.atomic = true,
                ("@", "a") => field.list = ListType::Atomic,
                ("@", "s") => field.list = ListType::Set,
                ("@", keys) => {
                    let keys: Vec<&'static str> = keys.strip_prefix('m')?.split(',').collect();
                    field.list = ListType::Map(Vec::leak(keys));
                }
                ("~", patch) => field.patch = parse_patch(patch),
                ("=", default) => field.default = Some(default),
                (":", go) => field.go = Some(go),
                _ => return None,
            }
        }
        Some(field)
    }

    fn shape(&mut self, word: &'static str) -> Option<Shape> {
        let (letter, rest) = word.split_at_checked(1)?;
        Some(match (letter, rest) {
            ("[", _) => Shape::List(self.inner(rest)?),
            ("{", _) => Shape::Map(self.inner(rest)?),
            ("#", _) => Shape::Struct(*self.names.get(rest)?),
            ("B", "") => Shape::Bool,
            ("i", "") => Shape::Int32,
            ("l", "") => Shape::Int64,
            ("d", "") => Shape::Double,
            ("s", "") => Shape::String,
            ("b", "") => Shape::Bytes,
            ("t", "") => Shape::Time,
            ("u", "") => Shape::MicroTime,
            ("q", "") => Shape::Quantity,
            ("o", "") => Shape::IntOrString,
            ("*", "") => Shape::Any,
            ("R", "") => Shape::Raw,
            ("F", "") => Shape::Fields,
            _ => return None,
        })
    }

    fn inner(&mut self, word: &'static str) -> Option<ShapeId> {
        let shape = self.shape(word)?;
        if let Some(id) = self.seen.get(&shape) {
            return Some(*id);
        }
        let id = ShapeId(u16::try_from(self.shapes.len()).ok()?);
        self.shapes.push(shape);
        self.seen.insert(shape, id);
        Some(id)
    }
}

fn parse_patch(word: &'static str) -> Patch {
    let (letters, key) = word.split_once('/').map_or((word, None), |(letters, key)| (letters, Some(key)));
    Patch { merge: letters.contains('m'), retain_keys: letters.contains('k'), replace: letters.contains('r'), key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KINDS;

    #[test]
    fn the_generated_schema_parses_and_knows_every_kind() {
        let schema = parse(TEXT).expect("well formed");
        for kind in KINDS {
            let found = schema.get(schema.of(kind));
            assert_eq!(found.kind, Some((kind.group, kind.version, kind.kind)), "{}", found.name());
            assert!(found.field("metadata").is_some(), "{}", kind.kind);
        }
        assert!(schema.types().all(|(_, t)| t.fields.is_sorted_by_key(|f| f.name)));
    }

    #[test]
    fn a_field_says_how_it_merges() {
        let schema = schema();
        let container = schema.get(schema.find("io.k8s.api.core.v1.Container").expect("a type"));
        let ports = container.field("ports").expect("a field");
        assert_eq!(ports.list, ListType::Map(&["containerPort", "protocol"]));
        assert_eq!(ports.patch, Patch { merge: true, key: Some("containerPort"), ..Patch::default() });
        assert_eq!(schema.go_name(ports.shape), "[]v1.ContainerPort");
        let spec = schema.get(schema.find("io.k8s.api.core.v1.PodSpec").expect("a type"));
        let volumes = spec.field("volumes").expect("a field");
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        let selector = schema.get(schema.find("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").expect("a type"));
        assert!(selector.atomic);
    }

    #[test]
    fn a_field_says_what_becomes_of_its_zero_value() {
        let schema = schema();
        let zero = |of: &str, field: &str| {
            let id = schema.find(of).expect("a type");
            schema.get(id).field(field).expect("a field").zero
        };
        for (of, field, expected) in [
            ("io.k8s.api.apps.v1.StatefulSetSpec", "replicas", Zero::Kept),
            ("io.k8s.api.apps.v1.StatefulSetSpec", "template", Zero::Written),
            ("io.k8s.api.core.v1.EnvVar", "name", Zero::Written),
            ("io.k8s.api.core.v1.EnvVar", "value", Zero::LeftOut),
            ("io.k8s.api.core.v1.EphemeralContainer", "command", Zero::LeftOut),
            ("io.k8s.api.core.v1.Volume", "emptyDir", Zero::Kept),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp", Zero::LeftOut),
        ] {
            assert_eq!(zero(of, field), expected, "{of}.{field}");
        }
        let marked = |of: &Type| of.fields.iter().any(|field| field.zero != Zero::Kept);
        for kind in KINDS {
            assert!(marked(schema.get(schema.of(kind))), "{}: cargo xtask codegen-zeros has not been run", kind.kind);
        }
    }

    #[test]
    fn descriptions_belong_to_their_fields() {
        let (schema, texts) = (schema(), descriptions());
        let spec = schema.get(schema.find("io.k8s.api.apps.v1.StatefulSetSpec").expect("a type"));
        assert!(texts.of_type(spec).starts_with("A StatefulSetSpec is the specification"));
        let replicas = texts.of_field(spec.field("replicas").expect("a field"));
        assert!(replicas.starts_with("replicas is the desired number of replicas"), "{replicas}");
        assert_eq!(texts.lines.len(), TEXT.lines().count() + 1);
    }
}
