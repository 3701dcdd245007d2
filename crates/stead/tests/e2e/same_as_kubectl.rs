//! Our command line beside stock kubectl, on one server: same output, same errors, same exit codes.
//!
//! Commands that only look run on the same objects. Commands that change run once in a namespace of each, whose names are of the
//! same length. What is known to differ is not in the tables but in this list, with its reason:
//!
//! - help texts, versions of the client: ours are our own;
//! - the order of maps and of equal sort keys: Go's is random (`label --list`, `drain`'s errors, events of the same second);
//! - a command that does not exist: some builds of kubectl look for a plug-in of that name first;
//! - `rollout pause` of a StatefulSet: ours does it, upstream refuses.

use std::path::PathBuf;

use stead_testkit::cluster::Cluster;
use stead_testkit::kubectl::{Done, Kubectl};

use crate::support::cluster;

/// How often a command is tried whose output tells ages: a second may have passed between the two programs.
pub(crate) const TRIES: usize = 8;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: nginx:1.21
        ports: [{containerPort: 80, name: http}]
        env: [{name: A, value: b}, {name: P, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: dep}
spec:
  replicas: 1
  selector: {matchLabels: {app: dep}}
  template:
    metadata: {labels: {app: dep}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "busybox:1.36", command: [sh, -c, "echo hello; echo err >&2; sleep 100000"]}
      - {name: two, image: "busybox:1.36", command: [sh, -c, "echo second; sleep 100000"]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm, annotations: {long: "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}}
data: {a: "1", my.cnf: "[mysqld]\nx=y\n", odd: "yes", folded: "word: aaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ccccccccccccccccccc ddddddddddd"}
---
apiVersion: v1
kind: Secret
metadata: {name: sec}
stringData: {user: admin, pass: secret}
---
apiVersion: v1
kind: Pod
metadata: {name: pending}
spec:
  automountServiceAccountToken: false
  containers: [{name: c, image: "busybox:1.36", resources: {requests: {cpu: "100"}}}]
"#;

/// Commands that only look.
const LOOKS: &[&str] = &[
    "get pods",
    "get po",
    "get Pod",
    "get pods -o wide",
    "get pods -A",
    "get pods --show-labels",
    "get pods -L app,nothere",
    "get pods --no-headers",
    "get pods --sort-by=.metadata.name",
    "get pods --sort-by={.spec.nodeName}",
    "get pods -l app=web",
    "get pods -l app!=web -o name",
    "get pods -l nothere=x",
    "get pods --field-selector status.phase=Running",
    "get pods --field-selector status.nothere=Running",
    "get pods x -l a=b",
    "get pods x -A",
    "get pod web-0 web-1",
    "get pod/web-0 svc/web",
    "get pod/web-0 sts",
    "get sts",
    "get sts -o wide",
    "get sts web",
    "get statefulsets.apps web -o name",
    "get sts web -o yaml",
    "get sts web -o json",
    "get sts web -o yaml --show-managed-fields",
    "get svc,sts",
    "get po,svc,sts,pvc,pv",
    "get all",
    "get svc -o wide",
    "get svc web -o yaml",
    "get pvc",
    "get pvc -o wide",
    "get pv",
    "get sc",
    "get cm cm -o yaml",
    "get cm cm -o json",
    "get secret sec -o yaml",
    "get secret sec -o go-template='{{range $k,$v := .data}}{{$k}}={{$v|base64decode}}{{\"\\n\"}}{{end}}'",
    "get deploy,rs",
    "get nodes",
    "get nodes -o wide",
    "get ns",
    "get ns nothere",
    "get ns nothere --ignore-not-found",
    "get pod nothere",
    "get pod nothere other",
    "get nothere",
    "get",
    "get nothere/x",
    "get pods -o jsonpath={.items[*].metadata.name}",
    "get pods -o jsonpath={.items[0].metadata}",
    "get pods -o jsonpath='{range .items[*]}{.metadata.name}{\"\\t\"}{.status.phase}{\"\\n\"}{end}'",
    "get pods -o jsonpath={.items[0",
    "get pod web-0 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'",
    "get pods -o jsonpath",
    "get pods -o jsonpath-as-json={.items[*].metadata.name}",
    "get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP,X:.nothere",
    "get pods -o custom-columns=NAME",
    "get pods -o nothere",
    "get pods -o yaml=x",
    "get pods -o go-template={{.items",
    "get pods -n nothere",
    "get configmaps -n nothere -o yaml",
    "get events --sort-by=.nothere -n nothere",
    "get --raw /version",
    "get --raw /nothere",
    "get controllerrevisions",
    "get endpointslices",
    "get endpoints",
    "get pods --watch=false",
    "get clusterrole admin -o yaml",
    "describe pod web-0",
    "describe pod pending",
    "describe pods -l app=web",
    "describe sts web",
    "describe deploy dep",
    "describe rs",
    "describe svc web",
    "describe pvc data-web-0",
    "describe sc",
    "describe cm cm",
    "describe secret sec",
    "describe node",
    "describe ns",
    "describe endpoints web",
    "describe sa default",
    "describe controllerrevisions",
    "describe pod nothere",
    "describe nothere x",
    "describe pods -n nothere",
    "rollout status sts/web",
    "rollout status deploy/dep",
    "rollout status pod/web-0",
    "rollout status svc/web",
    "rollout status sts/nothere",
    "rollout history sts/web",
    "rollout history sts/web --revision=1",
    "rollout history sts/web --revision=7",
    "rollout history deploy/dep",
    "rollout undo sts/web",
    "rollout undo sts/web --to-revision=7",
    "rollout restart pod/web-0",
    "rollout restart sts/nothere",
    "rollout frob sts/web",
    "wait --for=condition=Ready pod/web-0",
    "wait --for=condition=Ready pods -l app=web",
    "wait --for=condition=Nothere pod/web-0 --timeout=1s",
    "wait --for=nothere pod/web-0",
    "wait pod/web-0",
    "wait --for=delete pod/nothere --timeout=1s",
    "wait --for=jsonpath={.status.phase}=Running pod/web-0",
    "wait --for=condition=Ready pod/nothere",
    "logs deploy/dep -c main",
    "logs deploy/dep",
    "logs web-0 --tail=1",
    "logs nothere",
    "logs pending",
    "logs web-0 -p",
    "logs web-0 -c nothere",
    "logs",
    "logs web-0 --since-time=x",
    "exec web-0 -- hostname",
    "exec web-0 -- sh -c 'echo out; echo err >&2; exit 3'",
    "exec deploy/dep -- hostname",
    "exec deploy/dep -c two -- echo two",
    "exec pending -- ls",
    "exec nothere -- ls",
    "exec web-0",
    "exec web-0 hostname",
    "exec",
    "port-forward web-0",
    "port-forward pending 80",
    "cp /nothere web-0:/tmp/x",
    "cp /etc/hostname /tmp/x",
    "api-versions",
    "api-resources",
    "api-resources -o wide --namespaced=false",
    "api-resources --api-group=apps -o name",
    "explain pods",
    "explain sts.spec.replicas",
    "explain pod.spec.containers",
    "explain sts.nothere",
    "explain nothere",
    "config view",
    "config current-context",
    "config get-contexts",
    "config use-context nothere",
    "cluster-info",
    "cordon nothere",
    "uncordon nothere",
    "scale sts nothere --replicas=3",
    "scale sts web --current-replicas=5 --replicas=3",
    "scale sts web --replicas=-1",
    "patch sts web",
    "patch sts web -p '{\"spec\":'",
    "patch sts web --type=xml -p '{}'",
    "patch sts web -p '{\"spec\":{\"serviceName\":\"x\"}}'",
    "patch sts nothere -p '{}'",
    "label pod web-0",
    "label pod web-0 app=web2",
    "label pod web-0 a=b=c",
    "label pod nothere a=b",
    "annotate pod web-0",
    "set image sts/web nothere=nginx:1",
    "set image sts/web",
    "delete pod nothere",
    "delete pods",
    "delete pods -l nothere=x",
    "delete pod x -l a=b",
    "delete pod nothere --ignore-not-found",
    "delete pod web-0 --dry-run=server",
    "create namespace default",
    "create configmap",
    "create configmap x --from-literal=x",
    "create configmap x --from-literal=a=b --dry-run=client -o yaml",
    "create deployment d --image=nginx --dry-run=client -o yaml",
    "create secret generic s --from-literal=a=b --dry-run=client -o yaml",
    "create service clusterip s --tcp=80:8080 --dry-run=client -o yaml",
    "run x --image=nginx --dry-run=client -o yaml --env=A=b --port=80",
    "apply",
    "apply -f nothere.yaml",
    "edit pod nothere",
    "get pods --nothere",
    "auth can-i get pods",
    "auth can-i get pods --as=jane",
    "auth can-i get pods/web-0",
    "auth can-i get pods -q",
    "auth can-i create sts -A",
    "auth can-i get nodes",
    "auth can-i get nothere",
    "auth can-i get /healthz --as=jane",
    "auth can-i frob pods",
    "auth can-i",
    "auth whoami",
    "auth whoami -o yaml",
    "auth whoami --as=jane --as-group=a --as-group=b",
    "taint",
    "taint node -l nothere=x a",
    "taint pods x a=b:NoSchedule",
    "taint node nothere a=b:NoSchedule",
    "taint node -l nothere=x a=b:Frob",
    "taint nodes --all a-",
    "taint nodes --all a=b:NoSchedule a=c:NoSchedule",
    "taint nodes --all a=b:NoSchedule a:NoSchedule-",
    "taint nodes --all a=b:PreferNoSchedule --dry-run=server",
    "taint nodes --all a=b:PreferNoSchedule --dry-run=client -o name",
];

/// Commands that change, in this order, each program in its own namespace. `-` is [`OBJECTS`] on standard input.
const CHANGES: &[&str] = &[
    "apply -f -",
    "apply -f - --dry-run=server",
    "apply -f -",
    "apply -f - -o name",
    "create -f -",
    "wait --for=condition=Ready pod/web-0 pod/web-1 --timeout=60s",
    "scale sts web --replicas=2",
    "scale sts/web --current-replicas=2 --replicas=2",
    "label pod web-0 tier=front",
    "label pod web-0 tier=front",
    "label pod web-0 tier=back --overwrite",
    "label pod web-0 tier-",
    "label pod web-0 nothere-",
    "label pods -l app=web x=y",
    "annotate sts web a=b",
    "annotate sts web a=c",
    "annotate sts web a=c --overwrite",
    "annotate sts web a-",
    "patch svc web -p '{\"metadata\":{\"labels\":{\"x\":\"y\"}}}'",
    "patch svc web -p '{\"metadata\":{\"labels\":{\"x\":\"y\"}}}'",
    "patch cm cm --type=merge -p 'data: {b: \"2\"}'",
    "patch cm cm --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/b\"}]'",
    "set image sts/web nginx=nginx:1.22",
    "set image sts/web nginx=nginx:1.22",
    "set env deploy/dep X=y",
    "set resources deploy/dep -c main --limits=memory=64Mi",
    "rollout pause deploy/dep",
    "rollout pause deploy/dep",
    "rollout resume deploy/dep",
    "rollout resume deploy/dep",
    "rollout undo sts/web",
    "rollout restart deploy/dep",
    "create configmap more --from-literal=a=b",
    "create configmap more --from-literal=a=b",
    "create serviceaccount robot",
    "create deployment d --image=nginx:1.21 --replicas=0",
    "run one --image=nginx:1.21",
    "run one --image=nginx:1.21",
    "replace -f -",
    "apply --server-side -f -",
    "apply --server-side --force-conflicts -f -",
    "delete pod one --wait=false --grace-period=1",
    "delete cm more -o name",
    "delete deploy d",
    "delete sa robot --wait=false",
    "delete sts web --cascade=orphan",
    "get sts",
    "delete pods -l app=web --force",
    "delete -f - --ignore-not-found",
    "delete pvc --all",
];

/// Stock kubectl and ours, by the name under which people call it.
pub(crate) fn programs(cluster: &Cluster, kubectl: &Kubectl) -> Option<(Kubectl, Kubectl)> {
    let version = kubectl.run("version --client").stdout;
    let new_enough = ["v1.30", "v1.31", "v1.32", "v1.33"].iter().any(|minor| version.contains(minor));
    if !new_enough {
        eprintln!("left out: the texts to compare with are those of kubectl 1.30 to 1.33; this machine has\n{version}");
        return None;
    }
    let link = cluster.data_dir().join("kubectl");
    std::os::unix::fs::symlink(PathBuf::from(env!("CARGO_BIN_EXE_stead")), &link).unwrap();
    Some((kubectl.clone(), Kubectl { program: link, kubeconfig: kubectl.kubeconfig.clone() }))
}

/// Some builds of kubectl hand over to another one and word usage errors a little differently.
pub(crate) fn normal(mut done: Done) -> Done {
    let line = |line: &str| match line.split_once("\"command failed\" err=\"") {
        Some((_, text)) => format!("error: {}", text.trim_end_matches('"').replace("\\\"", "\"")),
        None => line.strip_prefix("Error: ").map_or_else(|| line.to_owned(), |text| format!("error: {text}")),
    };
    let lines: Vec<String> = done.stderr.trim_end().lines().map(line).collect();
    done.stderr = lines.join("\n");
    done
}

pub(crate) fn told(command: &str, stock: &Done, ours: &Done) -> String {
    let side = |name: &str, done: &Done| format!("{name} = {}\n{}{}\n", done.code, done.stdout, done.stderr);
    format!("--- {command}\n{}{}", side("kubectl", stock), side("stead", ours))
}

#[test]
fn acceptance_7_our_command_line_answers_as_kubectl_does() {
    let (cluster, kubectl) = cluster();
    let Some((stock, ours)) = programs(&cluster, &kubectl) else { return };
    kubectl.apply(OBJECTS);
    let _ = kubectl.ok("wait --for=condition=Ready pod/web-0 --timeout=60s");
    kubectl.eventually("get sts web -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    kubectl.eventually("get deploy dep -o jsonpath={.status.readyReplicas}", |ready| ready == "1");
    let mut differences = Vec::new();
    for command in LOOKS {
        let mut last = String::new();
        let same = (0..TRIES).any(|_| {
            let (before, ours) = (normal(stock.run(command)), normal(ours.run(command)));
            last = told(command, &before, &ours);
            before == ours || normal(stock.run(command)) == ours
        });
        if !same {
            differences.push(last);
        }
    }
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), LOOKS.len(), differences.join("\n"));
}

#[test]
fn acceptance_7_our_command_line_changes_as_kubectl_does() {
    let (cluster, kubectl) = cluster();
    let Some((stock, ours)) = programs(&cluster, &kubectl) else { return };
    let _ = kubectl.ok("create namespace side-a");
    let _ = kubectl.ok("create namespace side-b");
    let mut differences = Vec::new();
    for command in CHANGES {
        let one = |program: &Kubectl, namespace: &str| {
            let mut done = normal(program.run_with_input(&format!("-n {namespace} {command}"), OBJECTS));
            done.stdout = done.stdout.replace("side-b", "side-a");
            done.stderr = done.stderr.replace("side-b", "side-a");
            done
        };
        let (stock, ours) = (one(&stock, "side-a"), one(&ours, "side-b"));
        if stock != ours {
            differences.push(told(command, &stock, &ours));
        }
    }
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), CHANGES.len(), differences.join("\n"));
    let left = |namespace: &str| kubectl.ok(&format!("get sts,deploy,svc,cm,secret,sa,pvc -n {namespace} -o name"));
    assert_eq!(left("side-a"), left("side-b"), "both leave the same behind");
}
