//! `-k` and `kustomize`: objects as a kustomization wants them, from resources, generators and patches, directory by directory.
//!
//! Pure but for [`Tree`], by which files are read. What of a kustomization is not offered is refused by name (`file`).
//!
//! Source of the rules and texts: `sigs.k8s.io/kustomize/api/internal/target`, `api/krusty`.

mod change;
mod fields;
mod file;
mod generate;
mod names;
mod patches;
mod replace;
mod resource;
#[cfg(test)]
mod stories;

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use self::file::{Kustomization, Order, Patch, SortOptions};
use self::names::End;
use self::resource::{Resource, absorb, append};
use crate::failure::{Failure, Result, plain, system};
use crate::manifest;

/// How deep kustomizations may lie in each other.
const DEPTH_MAX: usize = 64;
/// What keeps an object out of the output.
const LOCAL: &str = "config.kubernetes.io/local-config";
/// The kinds that come first and last, when nothing else is said.
const FIRST: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Where files are read from.
pub(crate) trait Tree {
    /// The path without links.
    fn real(&self, path: &Path) -> std::io::Result<PathBuf>;
    fn is_directory(&self, path: &Path) -> bool;
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
}

/// This machine's files.
pub(crate) struct Disk;

impl Tree for Disk {
    fn real(&self, path: &Path) -> std::io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// What came of a kustomization.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) objects: Vec<Value>,
    pub(crate) warnings: Vec<String>,
}

/// Builds the kustomization of a directory. `restricted`: files have to lie in or below the directories that name them.
pub(crate) fn build(tree: &dyn Tree, directory: &str, restricted: bool) -> Result<Built> {
    if directory.starts_with("http://") || directory.starts_with("https://") || directory.contains("github.com") {
        return plain(format!("{directory}: kustomizations are read from directories only; fetch it first"));
    }
    let path = PathBuf::from(if directory.is_empty() { "." } else { directory });
    let root = tree.real(&path).map_err(|error| not_there(&path, &path, &error));
    let root = root.map_err(|why| Failure::Plain(format!("must build at directory: not a valid directory: {why}")))?;
    if !tree.is_directory(&root) {
        return plain(format!("must build at directory: '{}': file is not directory", root.display()));
    }
    let mut builder = Builder { tree, restricted, warnings: Vec::new(), open: Vec::new() };
    let file = builder.load(&root)?;
    let mut all = Vec::new();
    let sort = file.sort_options.clone();
    builder.accumulate(&root, &file, &mut all)?;
    for resource in all.iter_mut().filter(|resource| resource.hashed) {
        let name = format!("{}-{}", resource.id().name, generate::hash(&resource.object));
        resource.remember();
        resource.set_name(&name);
    }
    names::follow(&mut all)?;
    let is_local = |resource: &Resource| {
        resource.object["metadata"]["annotations"].get(LOCAL).is_some_and(|value| value != "false")
    };
    all.retain(|resource| !is_local(resource));
    order(&mut all, sort)?;
    let objects = all.into_iter().map(|resource| resource.object).collect();
    Ok(Built { objects, warnings: builder.warnings })
}

/// Upstream's words for a path that does not exist.
fn not_there(shown: &Path, path: &Path, error: &std::io::Error) -> String {
    let shown = shown.display();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("evalsymlink failure on '{shown}' : lstat {}: {}", absolute.display(), system(error))
}

/// Puts objects into the order that the kustomization asks for.
fn order(all: &mut [Resource], options: Option<SortOptions>) -> Result {
    let given = match options {
        None => None,
        Some(SortOptions { order, legacy_sort_options }) => match (&*order, legacy_sort_options) {
            ("fifo", None) => return Ok(()),
            ("fifo", Some(_)) => {
                return plain(
                    "the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'",
                );
            }
            ("legacy", given) => given,
            _ => return plain("the field 'sortOptions.order' must be one of [fifo, legacy]"),
        },
    };
    let owned = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let Order { order_first, order_last } =
        given.unwrap_or_else(|| Order { order_first: owned(FIRST), order_last: owned(LAST) });
    let place = |kind: &str| {
        let first = order_first.iter().position(|other| other == kind);
        let last = order_last.iter().position(|other| other == kind);
        match (first, last) {
            (_, Some(place)) => (2, place),
            (Some(place), _) => (0, place),
            (None, None) => (1, 0),
        }
    };
    all.sort_by_cached_key(|resource| {
        let id = resource.id();
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let kinds = format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), or(&id.kind, "~K"));
        (place(&id.kind), kinds, or(&id.namespace, "~X"), or(&id.name, "~N"))
    });
    Ok(())
}

struct Builder<'t> {
    tree: &'t dyn Tree,
    restricted: bool,
    warnings: Vec<String>,
    /// The directories that are being built, outermost first.
    open: Vec<PathBuf>,
}

impl Builder<'_> {
    /// Reads the kustomization file of a directory.
    fn load(&mut self, directory: &Path) -> Result<Kustomization> {
        let found: Vec<PathBuf> =
            file::NAMES.iter().map(|name| directory.join(name)).filter(|path| self.tree.real(path).is_ok()).collect();
        let [path] = &found[..] else {
            return match found.len() {
                0 => plain(format!(
                    "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'",
                    directory.display()
                )),
                _ => plain(format!("Found multiple kustomization files under: {}\n", directory.display())),
            };
        };
        let content = self.tree.read(path)?;
        let (file, warnings) = Kustomization::parse(&content, &directory.display().to_string())?;
        self.warnings.extend(warnings);
        Ok(file)
    }

    /// Adds the objects of a kustomization, changed as it says.
    fn accumulate(&mut self, directory: &Path, file: &Kustomization, all: &mut Vec<Resource>) -> Result {
        if self.open.len() >= DEPTH_MAX {
            return plain(format!(
                "{}: kustomizations lie more than {DEPTH_MAX} deep in each other",
                directory.display()
            ));
        }
        self.open.push(directory.to_owned());
        for named in &file.resources {
            self.resource(directory, named, all)
                .map_err(|failure| Failure::Plain(format!("accumulating resources: {}", failure.message())))?;
        }
        for made in self.generated(directory, file)? {
            absorb(all, made)
                .map_err(|failure| Failure::Plain(format!("merging from generator: {}", failure.message())))?;
        }
        for named in &file.components {
            self.component(directory, named, all)
                .map_err(|failure| Failure::Plain(format!("accumulating components: {}", failure.message())))?;
        }
        self.transform(directory, file, all)?;
        let _ = self.open.pop();
        Ok(())
    }

    fn generated(&self, directory: &Path, file: &Kustomization) -> Result<Vec<Resource>> {
        let read = |path: &str| self.read(directory, path);
        let options = &file.generator_options;
        let maps = file.config_map_generator.iter().map(|generator| generate::config_map(generator, options, &read));
        let secrets = file.secret_generator.iter().map(|generator| generate::secret(generator, options, &read));
        maps.chain(secrets).collect()
    }

    /// A file with objects, or a directory with a kustomization.
    fn resource(&mut self, directory: &Path, named: &str, all: &mut Vec<Resource>) -> Result {
        if named.contains("://") || named.starts_with("github.com/") || named.starts_with("git@") {
            return plain(format!("{named}: resources are read from files and directories only; fetch it first"));
        }
        let path = directory.join(named);
        let of_file = match self.tree.real(&path) {
            Ok(real) if self.tree.is_directory(&real) => {
                let shown = real.display().to_string();
                return self.base(&real, all).map_err(|failure| {
                    let no_file = format!("accumulating resources from '{named}': '{shown}' must resolve to a file");
                    Failure::Plain(format!("accumulation err='{no_file}': {}", failure.message()))
                });
            }
            _ => self.objects(directory, named, all),
        };
        let Err(failure) = of_file else { return Ok(()) };
        let why = failure.message();
        if why.contains("MalformedYAMLError") {
            return plain(why);
        }
        plain(match self.tree.real(&path) {
            Ok(real) => {
                format!(
                    "accumulation err='{why}': must build at directory: '{}': file is not directory",
                    real.display()
                )
            }
            Err(error) => {
                let missing = not_there(&normal(&path), &normal(&path), &error);
                format!("accumulation err='{why}': must build at directory: not a valid directory: {missing}")
            }
        })
    }

    fn objects(&self, directory: &Path, named: &str, all: &mut Vec<Resource>) -> Result {
        let during =
            |failure: Failure| Failure::Plain(format!("accumulating resources from '{named}': {}", failure.message()));
        let content = self.read(directory, named).map_err(during)?;
        for loaded in objects_of(&content, named).map_err(during)? {
            append(all, Resource::new(loaded)).map_err(|failure| {
                Failure::Plain(format!("merging resources from '{named}': {}", failure.message()))
            })?;
        }
        Ok(())
    }

    /// A kustomization of its own, whose objects are added.
    fn base(&mut self, directory: &Path, all: &mut Vec<Resource>) -> Result {
        let file = self.enter(directory)?;
        let shown = directory.display();
        if file.is_component() {
            return plain(format!("expected kind != 'Component' for path '{shown}'"));
        }
        let mut inner = Vec::new();
        self.accumulate(directory, &file, &mut inner).map_err(|failure| {
            Failure::Plain(format!("recursed accumulation of path '{shown}': {}", failure.message()))
        })?;
        for resource in inner {
            append(all, resource).map_err(|failure| {
                Failure::Plain(format!("recursed merging from path '{shown}': {}", failure.message()))
            })?;
        }
        Ok(())
    }

    /// A kustomization that changes the objects that are there.
    fn component(&mut self, directory: &Path, named: &str, all: &mut Vec<Resource>) -> Result {
        let path = directory.join(named);
        let real = self.tree.real(&path).map_err(|error| {
            let missing = not_there(&normal(&path), &normal(&path), &error);
            Failure::Plain(format!("must build at directory: not a valid directory: {missing}"))
        })?;
        let file = self.enter(&real)?;
        if !file.is_component() {
            let kind = if file.kind.is_empty() { "Kustomization" } else { &file.kind };
            return plain(format!("expected kind 'Component' for path '{}' but got '{kind}'", real.display()));
        }
        self.accumulate(&real, &file, all)
    }

    fn enter(&mut self, directory: &Path) -> Result<Kustomization> {
        if self.open.iter().any(|open| open == directory) {
            let open: Vec<String> = self.open.iter().map(|open| open.display().to_string()).collect();
            return plain(format!("cycle detected: {} is built already by [{}]", directory.display(), open.join(", ")));
        }
        self.load(directory).map_err(|failure| {
            Failure::Plain(format!("couldn't make target for path '{}': {}", directory.display(), failure.message()))
        })
    }

    /// All changes, in upstream's order.
    fn transform(&self, directory: &Path, file: &Kustomization, all: &mut Vec<Resource>) -> Result {
        for text in &file.patches_strategic_merge {
            self.merge(directory, text, all)?;
        }
        for patch in &file.patches {
            self.patch(directory, patch, "PatchTransformer", all)?;
        }
        names::move_to(all, &file.namespace)?;
        names::extend(all, End::Prefix, &file.name_prefix);
        names::extend(all, End::Suffix, &file.name_suffix);
        change::labels(all, file);
        change::annotations(all, file);
        for patch in &file.patches_json {
            self.patch(directory, patch, "PatchJson6902Transformer", all)?;
        }
        file.replicas.iter().try_for_each(|wanted| change::replicas(all, wanted))?;
        file.images.iter().try_for_each(|wanted| change::image(all, wanted))?;
        self.replace(directory, file, all)
    }

    fn replace(&self, directory: &Path, file: &Kustomization, all: &mut [Resource]) -> Result {
        for replacement in &file.replacements {
            let inline = replacement.source.is_some() || replacement.targets.is_some();
            if replacement.path.is_empty() {
                replace::replace(all, replacement)?;
            } else if inline {
                return plain("cannot specify both path and inline replacement");
            } else {
                let content = self.read(directory, &replacement.path)?;
                Kustomization::replacements(&content)?.iter().try_for_each(|one| replace::replace(all, one))?;
            }
        }
        Ok(())
    }

    /// An entry of `patchesStrategicMerge`: patches, or the file that holds them.
    fn merge(&self, directory: &Path, text: &str, all: &mut Vec<Resource>) -> Result {
        let patches = match objects_of(text.as_bytes(), "patch") {
            Ok(patches) if !patches.is_empty() => patches,
            _ => objects_of(&self.read(directory, text)?, text)?,
        };
        for patch in patches {
            let place = place_of(all, &patch)?;
            apply(all, &[place], &patch, false, false)?;
        }
        Ok(())
    }

    /// An entry of `patches` or `patchesJson6902`.
    fn patch(&self, directory: &Path, patch: &Patch, transformer: &str, all: &mut Vec<Resource>) -> Result {
        let troubled = |why: String| {
            Failure::Plain(format!("trouble configuring builtin {transformer} with config: `\n{}`: {why}", told(patch)))
        };
        let inline = patch.patch.trim();
        let (text, source) = match (&*patch.path, inline) {
            ("", "") => return Err(troubled("must specify one of patch and path in\n".to_owned() + &told(patch))),
            ("", inline) => (inline.to_owned(), format!("[patch: {inline:?}]")),
            (path, "") => {
                let content = self.read(directory, path).map_err(|failure| {
                    troubled(format!("failed to get the patch file from path({path}): {}", failure.message()))
                })?;
                (String::from_utf8_lossy(&content).into_owned(), format!("[path: {path:?}]"))
            }
            _ => return Err(troubled("patch and path can't be set at the same time\n".to_owned() + &told(patch))),
        };
        match Form::of(&text) {
            Some(Form::Merge(patches)) => merge_all(all, patch, &patches, &source),
            Some(Form::Operations(operations)) => {
                let Some(target) = &patch.target else {
                    return plain(format!("must specify a target for JSON patch {source}"));
                };
                for place in target.select(all)? {
                    let resource = &mut all[place];
                    resource.remember();
                    let object = std::mem::take(&mut resource.object);
                    let id = resource::Id::of(&object);
                    resource.object = stead_machinery::patch::json::apply(object, &operations)
                        .map_err(|error| Failure::Plain(format!("{id}: JSON patch {source}: {}", error.message)))?;
                }
                Ok(())
            }
            None => Err(troubled(format!("unable to parse SM or JSON patch from {source}"))),
        }
    }

    /// Reads a file that a kustomization names.
    fn read(&self, directory: &Path, named: &str) -> Result<Vec<u8>> {
        let path = directory.join(named);
        let real =
            self.tree.real(&path).map_err(|error| Failure::Plain(not_there(&normal(&path), &normal(&path), &error)))?;
        if self.tree.is_directory(&real) {
            return plain(format!("'{}' must resolve to a file", real.display()));
        }
        if self.restricted && !real.starts_with(directory) {
            return plain(format!("security; file '{}' is not in or below '{}'", real.display(), directory.display()));
        }
        self.tree.read(&real).map_err(|error| Failure::Plain(format!("open {}: {}", real.display(), system(&error))))
    }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

/// The objects of a text; each has to have a name.
fn objects_of(content: &[u8], source: &str) -> Result<Vec<Value>> {
    let loaded = manifest::parse(content, source, source).map_err(|failure| match failure.message() {
        message if message.contains("yaml: ") => {
            let why = message.rsplit("yaml: ").next().unwrap_or_default();
            Failure::Plain(format!("MalformedYAMLError: yaml: {why} in File: {source}"))
        }
        message => Failure::Plain(message),
    })?;
    let named = |loaded: manifest::Loaded| {
        let id = resource::Id::of(&loaded.object);
        match id.name.is_empty() {
            true => plain(format!("missing metadata.name in object {id}")),
            false => Ok(loaded.object),
        }
    };
    loaded.into_iter().map(named).collect()
}

/// A patch's text, understood.
enum Form {
    Merge(Vec<Value>),
    Operations(Value),
}

impl Form {
    fn of(text: &str) -> Option<Self> {
        if let Some(objects) = objects_of(text.as_bytes(), "patch").ok().filter(|objects| !objects.is_empty()) {
            return Some(Self::Merge(objects));
        }
        let operations: Value = match text.starts_with('[') {
            true => serde_json::from_str(text).ok()?,
            false => serde_norway::from_str(text).ok()?,
        };
        let list = operations.as_array()?;
        list.iter().all(|operation| operation["op"].is_string()).then_some(Self::Operations(operations))
    }
}

/// Merges the patches of one entry.
fn merge_all(all: &mut Vec<Resource>, entry: &Patch, patches: &[Value], source: &str) -> Result {
    let (name, kind) = (entry.options.allow_name_change, entry.options.allow_kind_change);
    let Some(target) = &entry.target else {
        for patch in patches {
            let place = place_of(all, patch).map_err(|failure| {
                let id = resource::Id::of(patch);
                Failure::Plain(format!("no resource matches strategic merge patch \"{id}\": {}", failure.message()))
            })?;
            apply(all, &[place], patch, name, kind)?;
        }
        return Ok(());
    };
    let [patch] = patches else {
        return plain(format!(
            "Multiple Strategic-Merge Patches in one `patches` entry is not allowed to set `patches.target` field: {source}"
        ));
    };
    let places = target.select(all)?;
    apply(all, &places, patch, name, kind)
}

/// Where the object is that a patch names.
fn place_of(all: &[Resource], patch: &Value) -> Result<usize> {
    let id = resource::Id::of(patch);
    let mut places = all
        .iter()
        .enumerate()
        .filter(|(_, resource)| resource.answers_to(|other| other.is(&id)))
        .map(|(place, _)| place);
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        (None, _) => plain(format!("no matches for Id {id}; failed to find unique target for patch {id}")),
        _ => plain(format!("multiple matches for Id {id}; failed to find unique target for patch {id}")),
    }
}

/// Merges a patch into objects; what it deletes goes.
fn apply(all: &mut Vec<Resource>, places: &[usize], patch: &Value, new_name: bool, new_kind: bool) -> Result {
    let mut gone = Vec::new();
    for &place in places {
        let resource = &mut all[place];
        if new_name || new_kind {
            resource.remember();
        }
        let old = resource.id();
        let object = std::mem::take(&mut resource.object);
        let had_namespace = object["metadata"].get("namespace").is_some();
        let Some(mut object) = patches::strategic(object, patch)? else {
            gone.push(place);
            continue;
        };
        if !new_kind {
            object["kind"] = old.kind.as_str().into();
            object["apiVersion"] =
                if old.group.is_empty() { old.version } else { format!("{}/{}", old.group, old.version) }.into();
        }
        if !new_name {
            object["metadata"]["name"] = old.name.as_str().into();
        }
        match had_namespace {
            true => object["metadata"]["namespace"] = old.namespace.as_str().into(),
            false => drop(object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("namespace"))),
        }
        resource.object = object;
    }
    gone.sort_unstable();
    for place in gone.into_iter().rev() {
        let _ = all.remove(place);
    }
    Ok(())
}

/// An entry of `patches` as upstream's errors show it.
fn told(patch: &Patch) -> String {
    let mut text = String::new();
    for (name, value) in [("patch", &patch.patch), ("path", &patch.path)] {
        if !value.is_empty() {
            text.push_str(&crate::print::yaml(&serde_json::json!({ name: value })));
        }
    }
    if let Some(target) = &patch.target {
        let mut map = serde_json::Map::new();
        for (name, value) in [
            ("annotationSelector", &target.annotation_selector),
            ("group", &target.group),
            ("kind", &target.kind),
            ("labelSelector", &target.label_selector),
            ("name", &target.name),
            ("namespace", &target.namespace),
            ("version", &target.version),
        ] {
            if !value.is_empty() {
                map.insert(name.to_owned(), value.as_str().into());
            }
        }
        text.push_str(&crate::print::yaml(&serde_json::json!({ "target": map })));
    }
    text
}
