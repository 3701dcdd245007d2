//! The image store: archives, layers, pulls.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests")]

mod support;

use std::path::Path;

use stead_runtime::*;
use support::registry::TestRegistry;
use support::*;

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "empty")
        .collect();
    names.sort();
    names
}

async fn import(world: &World, bytes: &[u8]) -> Result<Vec<Image>, EngineError> {
    let archive = world.dir.path().join("archive");
    std::fs::write(&archive, bytes).unwrap();
    world.engine().import(archive).await
}

fn docker_archive(tags: &str, layers: &[Vec<u8>], config: &str) -> Vec<u8> {
    let config = config_json(layers, config);
    let name = format!("{}.json", digest(config.as_bytes()).strip_prefix("sha256:").unwrap());
    let mut archive = Layer::new().file(&name, &config);
    let mut listed = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        archive = archive.entry(tar::EntryType::Regular, &format!("{at}/layer.tar"), 0o644, (0, 0), layer);
        listed.push(format!("\"{at}/layer.tar\""));
    }
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":[{tags}],"Layers":[{}]}}]"#, listed.join(","));
    archive.file("manifest.json", &manifest).done()
}

#[tokio::test]
async fn imports_archives_of_both_kinds() {
    let world = World::empty().await;
    let layer = busybox_layer();
    let upper = Layer::new().file("etc/hello", "hi\n").done();
    let layers = [layer, upper];
    let oci = oci_archive("tiny:1", &layers, TINY_CONFIG);
    let docker = docker_archive(r#""tiny:2","example.com/x:3""#, &layers, TINY_CONFIG);
    let zstd = zstd::encode_all(&docker[..], 3).unwrap();
    let first = import(&world, &oci).await.unwrap();
    assert_eq!(first[0].references, ["docker.io/library/tiny:1"]);
    let second = import(&world, &gzip(&docker)).await.unwrap();
    assert_eq!(second[0].id, first[0].id, "the same configuration is the same image");
    let expected = ["docker.io/library/tiny:1", "docker.io/library/tiny:2", "example.com/x:3"];
    assert_eq!(second[0].references, expected);
    import(&world, &zstd).await.unwrap();
    assert_eq!(world.engine().images().await.unwrap().len(), 1);
    for name in ["tiny:1", "docker.io/library/tiny:2", "example.com/x:3", first[0].id.as_str()] {
        assert_eq!(
            world.engine().image(name).await.unwrap().map(|image| image.id),
            Some(first[0].id.clone()),
            "{name}"
        );
    }
    assert!(world.engine().image("tiny:3").await.unwrap().is_none());
    assert!(world.engine().image("NOT a name").await.unwrap().is_none());

    // A name moves to a newer image.
    let newer = import(&world, &oci_archive("tiny:1", &layers[..1], "{}")).await.unwrap();
    assert_ne!(newer[0].id, first[0].id);
    let old = world.engine().image(&first[0].id).await.unwrap().unwrap();
    assert_eq!(old.references, ["docker.io/library/tiny:2", "example.com/x:3"]);

    // What nothing names is deleted, what something names is not.
    let layers_dir = world.dir.path().join("root/layers");
    assert_eq!(files(&layers_dir).len(), 2);
    let engine = world.engine();
    engine.remove_image("tiny:2").await.unwrap();
    engine.remove_image("example.com/x:3").await.unwrap();
    assert!(engine.image(&first[0].id).await.unwrap().is_none());
    assert_eq!(files(&layers_dir).len(), 1);
    engine.remove_image(&newer[0].id).await.unwrap();
    assert_eq!(files(&layers_dir).len(), 0);
    assert_eq!(files(&world.dir.path().join("root/images/blobs/sha256")).len(), 0);
    assert!(matches!(engine.remove_image("tiny:1").await, Err(EngineError::NotFound(_))));
}

#[tokio::test]
async fn an_image_in_use_is_kept() {
    let mut world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.engine().create_container(&sandbox, script("a", "echo hi")).await.unwrap();
    assert!(matches!(world.engine().remove_image(IMAGE).await, Err(EngineError::WrongState(_))));
    world.engine = None;
    world.open().await;
    assert!(world.engine().image(IMAGE).await.unwrap().is_some(), "the index survives");
    world.engine().remove_container(&id).await.unwrap();
    world.engine().remove_image(IMAGE).await.unwrap();
}

#[tokio::test]
async fn the_store_is_shared_with_other_processes() {
    let world = World::new().await;
    let beside = embedded::open_images(world.options()).unwrap();
    assert_eq!(beside.list().len(), 1);
    let archive = world.dir.path().join("other.tar");
    std::fs::write(&archive, oci_archive("other:1", &[Layer::new().file("x", "x").done()], "{}")).unwrap();
    beside.import(archive).await.unwrap();
    assert!(world.engine().image("other:1").await.unwrap().is_some());
    world.engine().remove_image("other:1").await.unwrap();
    assert_eq!(beside.list().len(), 1);
    let sandbox = world.sandbox().await;
    world.engine().create_container(&sandbox, script("a", "echo hi")).await.unwrap();
    assert!(matches!(beside.remove(IMAGE).await, Err(EngineError::WrongState(_))));
}

#[tokio::test]
async fn a_power_cut_before_the_sync_forgets_the_image() {
    let mut world = World::new().await;
    let index = world.dir.path().join("root/images/index.json");
    let read = || std::fs::read_to_string(&index).unwrap();
    // Else the sync of this very import would write the index once more.
    let synced = async {
        while !read().contains("\"unsynced\":null") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, synced).await.unwrap();
    world.engine = None;
    let text = read();
    let start = text.find("\"unsynced\":").unwrap();
    let end = start + text[start..].find('}').unwrap();
    std::fs::write(&index, format!("{}\"unsynced\":\"another-boot\"{}", &text[..start], &text[end..])).unwrap();
    world.open().await;
    assert!(world.engine().images().await.unwrap().is_empty());
    assert_eq!(files(&world.dir.path().join("root/layers")).len(), 0);
    world.engine = None;
    std::fs::write(&index, &text[..text.len() / 2]).unwrap();
    world.open().await;
    assert!(world.engine().images().await.unwrap().is_empty());
}

#[tokio::test]
async fn broken_archives_change_nothing() {
    let world = World::empty().await;
    let layers = [busybox_layer()];
    let whole = oci_archive("tiny:1", &layers, TINY_CONFIG);
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0xff;
    let packed = gzip(&whole);
    let mut wrong_layer = docker_archive("", &layers, "{}");
    let at = wrong_layer.windows(10).position(|window| window == b"no program").unwrap();
    wrong_layer[at] = b'N';
    let outside = |path: &'static str| {
        let mut tar = Layer::new().file("x", "x").done();
        tar[..path.len()].copy_from_slice(path.as_bytes());
        // The header's checksum again.
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        oci_archive("evil:1", &[tar], "{}")
    };
    for (what, bytes, text) in [
        ("empty", vec![], "neither an OCI layout"),
        ("not an archive", b"hello".repeat(1000), "cannot import"),
        ("cut", whole[..whole.len() / 2].to_vec(), "cannot import"),
        ("cut early", whole[..3000].to_vec(), "cannot import"),
        ("cut when packed", packed[..packed.len() - 10].to_vec(), "cannot import"),
        ("blob corrupt", corrupt, "is corrupt: its content has digest"),
        ("layer corrupt", wrong_layer, "is corrupt: its content has digest"),
        ("leads out", outside("../../evil"), "leads outside of the layer"),
    ] {
        let error = import(&world, &bytes).await.unwrap_err();
        assert!(matches!(error, EngineError::Invalid(_)), "{what}: {error:?}");
        assert!(error.to_string().contains(text), "{what}: {error}");
        assert!(world.engine().images().await.unwrap().is_empty(), "{what}");
        assert_eq!(files(&world.dir.path().join("root/layers")).len(), 0, "{what}");
        assert_eq!(files(&world.dir.path().join("root/images/stage")).len(), 0, "{what}");
        assert_eq!(files(&world.dir.path().join("root/images/blobs/sha256")).len(), 0, "{what}");
    }
    let nowhere = world.engine().import(world.dir.path().join("nosuch")).await;
    assert!(matches!(nowhere, Err(EngineError::Io { .. })));
    import(&world, &whole).await.unwrap();
}

#[tokio::test]
async fn layers_hide_replace_and_link() {
    let world = World::empty().await;
    let lower = Layer::new()
        .dir("d", 0o755, (0, 0))
        .file("d/hidden", "1")
        .file("d/kept", "2")
        .dir("opaque", 0o755, (0, 0))
        .file("opaque/old", "3")
        .file("becomes-dir", "4")
        .link(tar::EntryType::Symlink, "escape", "/../../../..")
        .link(tar::EntryType::Link, "hard", "d/kept")
        .entry(tar::EntryType::Regular, "setuid", 0o4755, (7, 8), b"x")
        .entry(tar::EntryType::Fifo, "fifo", 0o600, (0, 0), b"")
        .done();
    let upper = Layer::new()
        .file("d/.wh.hidden", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "5")
        .dir("becomes-dir", 0o711, (1, 1))
        .file("escape/inside", "6")
        .file("tmp/x", "7")
        .done();
    import(&world, &oci_archive("l:1", &[busybox_layer(), lower, upper], "{}")).await.unwrap();
    assert!(!Path::new("/inside").exists());
    let sandbox = world.sandbox().await;
    let line = "cd /; ls d opaque; stat -c '%a %u:%g %h %F' setuid hard becomes-dir fifo tmp; cat inside; rm -r d opaque; ls d opaque";
    let config = ContainerConfig { image: "l:1".to_owned(), ..script("a", &format!("exec 2>&1; {line}")) };
    let (_, output) = world.run(&sandbox, config).await;
    let expected = "d:\nkept\n\nopaque:\nnew\n4755 7:8 1 regular file\n644 0:0 2 regular file\n711 1:1 2 directory\n600 0:0 1 fifo\n1777 0:0 1 directory\n\
                    6ls: d: No such file or directory\nls: opaque: No such file or directory\n";
    assert_eq!(output, expected);
}

fn registries(world: &mut World, text: &str) {
    let path = world.dir.path().join("registries.yaml");
    std::fs::write(&path, text).unwrap();
    world.registries = Some(path);
}

#[tokio::test]
async fn pulls_by_mirrors() {
    let mut world = World::empty().await;
    let (empty, full) = (TestRegistry::start().await, TestRegistry::start().await);
    let text = format!(
        "mirrors:\n  docker.io:\n    endpoint: ['http://{}', 'http://{}']\n    rewrite: {{'^library/(.*)': 'm/$1'}}\n",
        empty.address, full.address
    );
    registries(&mut world, &text);
    world.open().await;
    let digest = full.put("m/redis", "7", &[busybox_layer()], TINY_CONFIG);
    let engine = world.engine();
    let image = engine.pull("redis:7", None).await.unwrap();
    assert_eq!(image.references, ["docker.io/library/redis:7"]);
    assert_eq!(image.digests, [format!("docker.io/library/redis@{digest}")]);
    assert_eq!(empty.requests(), ["HEAD /v2/m/redis/manifests/7"]);
    assert_eq!(full.requests().len(), 4, "head, manifest, config, layer");
    let again = engine.pull(&format!("redis@{digest}"), None).await.unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(full.requests().len(), 2, "what is there is not fetched again");
    assert!(engine.image(&format!("docker.io/library/redis@{digest}")).await.unwrap().is_some());

    // A layer that is there is not fetched again, a torn one is taken up where it broke.
    let upper = Layer::new().file("big", &"0123456789".repeat(100_000)).done();
    full.put("m/redis", "8", &[busybox_layer(), upper], TINY_CONFIG);
    let torn = {
        let mut content = full.content.lock().unwrap();
        let torn: Vec<String> = content.blobs.keys().cloned().collect();
        content.torn.extend(torn.clone());
        torn
    };
    let (a, b) = tokio::join!(engine.pull("redis:8", None), engine.pull("docker.io/redis:8", None));
    assert_eq!(a.unwrap().id, b.unwrap().id);
    let requests = full.requests();
    assert_eq!(requests.len(), 2 + 2 + 2, "shared by both, config and new layer in two parts: {requests:?} {torn:?}");
    let sandbox = world.sandbox().await;
    let config = ContainerConfig { image: "redis:8".to_owned(), ..script("a", "wc -c </big") };
    assert_eq!(world.run(&sandbox, config).await.1, "1000000\n");
}

#[tokio::test]
async fn pulls_what_is_for_this_machine() {
    let mut world = World::empty().await;
    let registry = TestRegistry::start().await;
    let digest = registry.put("x", "amd64", &[busybox_layer()], TINY_CONFIG);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"sha256:{}","size":1,"platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        "0".repeat(64)
    );
    let other = index.replace("\"amd64\"", "\"riscv64\"");
    {
        let mut content = registry.content.lock().unwrap();
        let kind = "application/vnd.oci.image.index.v1+json".to_owned();
        content.manifests.insert("x/1".into(), (kind.clone(), index.clone().into_bytes()));
        content
            .manifests
            .insert(format!("x/{}", support::digest(index.as_bytes())), (kind.clone(), index.clone().into_bytes()));
        content.manifests.insert("x/2".into(), (kind.clone(), other.clone().into_bytes()));
        content.manifests.insert(format!("x/{}", support::digest(other.as_bytes())), (kind, other.into_bytes()));
    }
    world.open().await;
    let name = format!("{}/x", registry.address);
    let image = world.engine().pull(&format!("{name}:1"), None).await.unwrap();
    assert_eq!(image.digests, [format!("{name}@{}", support::digest(index.as_bytes()))]);
    let error = world.engine().pull(&format!("{name}:2"), None).await.unwrap_err().to_string();
    assert!(error.contains("no match for platform in manifest"), "{error}");
}

#[tokio::test]
async fn pulls_with_credentials() {
    let mut world = World::empty().await;
    let registry = TestRegistry::start().await;
    registry.put("private", "1", &[Layer::new().file("x", "x").done()], "{}");
    registry.content.lock().unwrap().wanted = Some("dTpw".to_owned());
    let name = format!("{}/private:1", registry.address);
    let auth = |password: &str| Some(RegistryAuth { username: "u".to_owned(), password: password.to_owned() });
    for bearer in [false, true] {
        registry.content.lock().unwrap().bearer = bearer;
        for wrong in [None, auth("wrong")] {
            let error = world.engine().pull(&name, wrong).await.unwrap_err();
            assert!(matches!(error, PullError::Unauthorized(_)), "{error:?}");
            let start = format!("failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
        world.engine().pull(&name, auth("p")).await.unwrap();
        world.engine().remove_image(&name).await.unwrap();
        registries(&mut world, &format!("configs: {{'{}': {{auth: {{auth: dTpw}}}}}}\n", registry.address));
        world.open().await;
        world.engine().pull(&name, None).await.unwrap();
        world.engine().remove_image(&name).await.unwrap();
        registries(&mut world, "");
        world.open().await;
    }
}

#[tokio::test]
async fn failed_pulls_speak_like_the_field() {
    let mut world = World::empty().await;
    let registry = TestRegistry::start().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    registry.put("x", "1", &[Layer::new().file("x", "x").done()], "{}");
    let wrong: Vec<String> = {
        let mut content = registry.content.lock().unwrap();
        content.blobs.values_mut().for_each(|bytes| bytes[0] ^= 1);
        content.blobs.keys().cloned().collect()
    };
    registries(&mut world, &format!("mirrors: {{'mirrored.invalid': {{endpoint: ['http://{closed}']}}}}\n"));
    world.open().await;
    let own = &registry.address;
    let resolve =
        |name: &str| format!("failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": ");
    for (name, kind, expected) in [
        (format!("{own}/nosuch:1"), "NotFound", resolve(&format!("{own}/nosuch:1")) + &format!("{own}/nosuch:1: not found")),
        (
            "registry.invalid/x:1".to_owned(),
            "Failed",
            resolve("registry.invalid/x:1")
                + "failed to do request: Head \"https://registry.invalid/v2/x/manifests/1\": dial tcp: lookup registry.invalid: no such host",
        ),
        (
            "mirrored.invalid/x:1".to_owned(),
            "Failed",
            resolve("mirrored.invalid/x:1")
                + &format!("failed to do request: Head \"http://{closed}/v2/x/manifests/1?ns=mirrored.invalid\": dial tcp {closed}: connect: connection refused"),
        ),
        (
            "Bad//Name::x".to_owned(),
            "InvalidName",
            "couldn't parse image reference \"Bad//Name::x\": invalid reference format: repository name (/Name) must be lowercase".to_owned(),
        ),
    ] {
        let error = world.engine().pull(&name, None).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
    let error = world.engine().pull(&format!("{own}/x:1"), None).await.unwrap_err().to_string();
    assert!(error.contains("failed to copy: unexpected commit digest"), "{error} {wrong:?}");
    assert!(world.engine().images().await.unwrap().is_empty());
    assert_eq!(files(&world.dir.path().join("root/images/stage")).len(), 0);
}
