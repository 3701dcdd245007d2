//! Kustomizations as stories: files on the left, what comes of them on the right. The results are those of `kubectl kustomize`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Tree, build, normal};
use crate::print::yaml;

/// Files by path.
struct Files(BTreeMap<PathBuf, String>);

impl Files {
    /// `=== PATH` before each.
    fn of(text: &str) -> Self {
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut at = PathBuf::new();
        for line in text.lines() {
            match line.strip_prefix("=== ") {
                Some(path) => {
                    at = Path::new("/").join(path);
                    files.entry(at.clone()).or_default();
                }
                None => {
                    let file = files.entry(at.clone()).or_default();
                    file.push_str(line);
                    file.push('\n');
                }
            }
        }
        Self(files)
    }
}

impl Tree for Files {
    fn real(&self, path: &Path) -> std::io::Result<PathBuf> {
        let path = normal(path);
        match self.0.contains_key(&path) || self.is_directory(&path) {
            true => Ok(path),
            false => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such file or directory")),
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.keys().any(|file| file != path && file.starts_with(path))
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let file = self.0.get(path).map(|text| text.clone().into_bytes());
        file.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "no such file or directory"))
    }
}

/// What a kustomization in `/over` comes to, or why it does not.
fn built(files: &str) -> String {
    match build(&Files::of(files), "/over", true) {
        Ok(built) => built.objects.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
        Err(failure) => format!("error: {}", failure.message()),
    }
}

const SET: &str = "
=== over/set.yaml
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'nginx:1.21', envFrom: [{configMapRef: {name: conf}}]}
      - {name: side, image: busybox}
=== over/kustomization.yaml
resources: [set.yaml]
";

/// The set of [`SET`] with a kustomization's further lines; only the lines of the result that `show` names.
fn set_with(lines: &str, show: &[&str]) -> String {
    let text = built(&format!("{SET}{lines}"));
    if text.starts_with("error: ") {
        return text;
    }
    let wanted = |line: &&str| show.iter().any(|part| line.contains(part));
    text.lines().filter(wanted).map(str::trim).collect::<Vec<_>>().join(" | ")
}

#[test]
fn each_field_of_a_kustomization_does_its_part() {
    for (lines, show, wanted) in [
        ("namePrefix: a-\nnameSuffix: '-z'", &["name: a"][..], "name: a-web-z"),
        ("namespace: prod", &["namespace"], "namespace: prod"),
        ("images: [{name: nginx, newTag: '1.22'}]", &["image:"], "image: nginx:1.22 | - image: busybox"),
        (
            "images: [{name: busybox, newName: r:5000/b, digest: 'sha256:a'}]",
            &["image: r"],
            "- image: r:5000/b@sha256:a",
        ),
        ("replicas: [{name: web, count: 5}]", &["replicas"], "replicas: 5"),
        ("labels: [{pairs: {a: b}}]", &["a: b"], "a: b"),
        ("labels: [{pairs: {a: b}, includeTemplates: true}]", &["a: b"], "a: b | a: b"),
        ("labels: [{pairs: {a: b}, includeSelectors: true}]", &["a: b"], "a: b | a: b | a: b"),
        ("commonLabels: {a: b}", &["a: b"], "a: b | a: b | a: b"),
        ("commonAnnotations: {a: b}", &["a: b"], "a: b | a: b"),
    ] {
        assert_eq!(set_with(lines, show), wanted, "{lines}");
    }
}

#[test]
fn generated_names_end_with_a_hash_that_references_follow() {
    let conf = "configMapGenerator: [{name: conf, literals: [a=1]}]\n";
    let shown = set_with(conf, &["name: conf"]);
    assert_eq!(shown, "name: conf-h29d89cmmt | name: conf-h29d89cmmt");
    let fixed = format!("{conf}generatorOptions: {{disableNameSuffixHash: true, labels: {{l: m}}}}\n");
    assert_eq!(set_with(&fixed, &["name: conf", "l: m"]), "l: m | name: conf | name: conf");
    let prefixed = format!("{conf}namePrefix: p-\n");
    assert_eq!(set_with(&prefixed, &["name: p-conf"]), "name: p-conf-h29d89cmmt | name: p-conf-h29d89cmmt");
}

#[test]
fn patches_merge_by_name_and_what_they_name_comes_first() {
    let patch =
        |text: &str| format!("patches:\n- patch: |\n{}\n", text.replace('\n', "\n    ").replacen("", "    ", 1));
    let of = |spec: &str| {
        patch(&format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec: {{template: {{spec: {{containers: {spec}}}}}}}"
        ))
    };
    for (lines, show, wanted) in [
        (of("[{name: side, image: 'x:2'}]"), &["name: side", "name: main", "x:2"][..], "- image: x:2 | name: side | name: main"),
        (of("[{name: side, $patch: delete}]"), &["name: side", "name: main"], "name: main"),
        (of("[{$patch: replace}, {name: new, image: new}]"), &["- ", "name: new"], "- image: new | name: new"),
        (
            patch("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: web}\n$patch: delete"),
            &["name"],
            "",
        ),
        (
            "patches: [{target: {kind: Stateful.*}, patch: '[{\"op\": \"replace\", \"path\": \"/spec/serviceName\", \"value\": \"x\"}]'}]\n".to_owned(),
            &["serviceName"],
            "serviceName: x",
        ),
        (
            "patchesJson6902: [{target: {version: v1, kind: StatefulSet, name: web}, patch: '[{\"op\": \"add\", \"path\": \"/spec/replicas\", \"value\": 4}]'}]\n".to_owned(),
            &["replicas"],
            "replicas: 4",
        ),
        (
            patch("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: other}"),
            &[],
            "error: no resource matches strategic merge patch \"StatefulSet.v1.apps/other.[noNs]\": no matches for Id StatefulSet.v1.apps/other.[noNs]; failed to find unique target for patch StatefulSet.v1.apps/other.[noNs]",
        ),
    ] {
        assert_eq!(set_with(&lines, show), wanted, "{lines}");
    }
}

#[test]
fn overlays_change_what_their_bases_made() {
    let text = built(
        "
=== base/kustomization.yaml
resources: [service.yaml]
namePrefix: b-
configMapGenerator: [{name: conf, literals: [a=1, b=2]}]
=== base/service.yaml
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}}
=== over/set.yaml
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec: {serviceName: b-web}
=== part/kustomization.yaml
kind: Component
commonAnnotations: {part: here}
=== over/kustomization.yaml
resources: [set.yaml, ../base]
components: [../part]
namespace: prod
nameSuffix: '-2'
configMapGenerator: [{name: conf, behavior: merge, literals: [b=3]}]
generatorOptions: {disableNameSuffixHash: true}
",
    );
    let wanted = "\
apiVersion: v1
data:
  a: \"1\"
  b: \"3\"
kind: ConfigMap
metadata:
  annotations:
    part: here
  name: b-conf-2
  namespace: prod
---
apiVersion: v1
kind: Service
metadata:
  annotations:
    part: here
  name: b-web-2
  namespace: prod
spec:
  selector:
    app: web
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  annotations:
    part: here
  name: web-2
  namespace: prod
spec:
  serviceName: b-web-2
  template:
    metadata:
      annotations:
        part: here
";
    assert_eq!(text, wanted);
}

#[test]
fn what_is_not_offered_or_wrong_is_refused_by_name() {
    for (files, wanted) in [
        (
            "=== over/x\n",
            "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '/over'",
        ),
        ("=== over/kustomization.yaml\nfrob: 1\n", "invalid Kustomization: json: unknown field \"frob\""),
        ("=== over/kustomization.yaml\n\n", "kustomization.yaml is empty"),
        (
            "=== over/kustomization.yaml\nhelmCharts: [{name: x}]\n",
            "/over: the field \"helmCharts\" of a kustomization is not supported here",
        ),
        (
            "=== over/kustomization.yaml\nvars: [{name: x}]\n",
            "/over: the field \"vars\" of a kustomization is not supported here",
        ),
        (
            "=== over/kustomization.yaml\nkind: Frob\nnamePrefix: x\n",
            "Failed to read kustomization file under /over:\nkind should be Kustomization or Component",
        ),
        (
            "=== over/kustomization.yaml\nresources: [https://example.com/x.yaml]\n",
            "accumulating resources: https://example.com/x.yaml: resources are read from files and directories only; fetch it first",
        ),
        (
            "=== x.yaml\n=== over/kustomization.yaml\nresources: [../x.yaml]\n=== x.yaml\na: b\n",
            "accumulating resources: accumulation err='accumulating resources from '../x.yaml': security; file '/x.yaml' is not in or below '/over'': must build at directory: '/x.yaml': file is not directory",
        ),
        (
            "=== over/kustomization.yaml\nresources: [../over]\n",
            "accumulating resources: accumulation err='accumulating resources from '../over': '/over' must resolve to a file': cycle detected: /over is built already by [/over]",
        ),
        (
            "=== over/kustomization.yaml\nconfigMapGenerator: [{name: x, literals: [y]}]\n",
            "loading KV pairs: literal sources [y]: invalid literal source y, expected key=value",
        ),
        (
            "=== over/kustomization.yaml\nreplicas: [{name: x, count: 3}]\n",
            "resource with name x does not match a config with the following GVK [Deployment.[noVer].[noGrp] StatefulSet.[noVer].[noGrp] ReplicaSet.[noVer].[noGrp] ReplicationController.[noVer].[noGrp]]",
        ),
    ] {
        assert_eq!(built(files), format!("error: {wanted}"), "{files}");
    }
}

/// The set of [`SET`] with one replacement.
fn replaced(replacement: &str, show: &[&str]) -> String {
    set_with(&format!("replacements:\n- {}\n", replacement.replace('\n', "\n  ")), show)
}

#[test]
fn a_value_is_put_into_other_fields() {
    const NAME: &str = "source: {kind: StatefulSet, name: web}\ntargets:\n";
    for (replacement, show, wanted) in [
        (
            "- {select: {name: w.*}, fieldPaths: ['spec.template.spec.containers.*.image']}",
            &["image:"][..],
            "image: web | - image: web",
        ),
        (
            "- {select: {kind: StatefulSet}, fieldPaths: ['spec.template.spec.containers.[name=main].image'], options: {delimiter: ':', index: 1}}",
            &["image:"],
            "image: nginx:web | - image: busybox",
        ),
        (
            "- {select: {kind: StatefulSet}, fieldPaths: ['spec.template.spec.containers.[name=side].image'], options: {delimiter: /, index: -1}}",
            &["image:"],
            "image: nginx:1.21 | - image: web/busybox",
        ),
        (
            "- {select: {kind: StatefulSet}, fieldPaths: ['metadata.annotations.[a.b/c]'], options: {create: true}}",
            &["a.b"],
            "a.b/c: web",
        ),
        (
            "- {select: {kind: StatefulSet}, reject: [{name: web}], fieldPaths: ['spec.template.spec.containers.*.image']}",
            &["image:"],
            "image: nginx:1.21 | - image: busybox",
        ),
        (
            "- {select: {kind: StatefulSet}, fieldPaths: [spec.nothere]}",
            &[],
            "error: unable to find field \"spec.nothere\" in replacement target",
        ),
    ] {
        assert_eq!(replaced(&format!("{NAME}{replacement}"), show), wanted, "{replacement}");
    }
    let source = |source: &str| {
        replaced(
            &format!("{source}\ntargets: [{{select: {{kind: StatefulSet}}, fieldPaths: [spec.serviceName]}}]"),
            &["serviceName"],
        )
    };
    assert_eq!(source("sourceValue: mine"), "serviceName: mine");
    assert_eq!(
        source(
            "source: {kind: StatefulSet, fieldPath: 'spec.template.spec.containers.0.image', options: {delimiter: ':', index: 0}}"
        ),
        "serviceName: nginx"
    );
    assert_eq!(source("source: {kind: Pod}"), "error: nothing selected by Pod.[noVer].[noGrp]/[noName].[noNs]");
    assert_eq!(
        source("source: {kind: StatefulSet, fieldPath: spec.x}"),
        "error: fieldPath `spec.x` is missing for replacement source StatefulSet.[noVer].[noGrp]/[noName].[noNs]"
    );
    assert_eq!(
        source("source: {kind: StatefulSet, fieldPath: spec.serviceName, options: {delimiter: '-', index: 3}}"),
        "error: options.index 3 is out of bounds for value web"
    );
}
