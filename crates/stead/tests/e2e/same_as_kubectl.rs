//! Our command line beside stock kubectl, on one server: same output, same errors, same exit codes.
//!
//! Commands that only look run on the same objects. Commands that change run once in a namespace of each, whose names are of the
//! same length. What is known to differ is not in the tables but in this list, with its reason:
//!
//! - help texts, versions of the client: ours are our own;
//! - the order of maps and of equal sort keys: Go's is random (`label --list`, `drain`'s errors, events of the same second);
//! - a command that does not exist: some builds of kubectl look for a plug-in of that name first;
//! - the form of an autoscaler that is printed: ours is of version 2, as newer kubectls make it, and so are the pages of CronJobs with
//!   their time zone; the names of temporary files, and kubectl's warnings of its own log;
//! - `rollout pause` of a StatefulSet: ours does it, upstream refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stead_testkit::cluster::Cluster;
use stead_testkit::kubectl::{Done, Kubectl};

use crate::support::{cluster, root};

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

/// Objects whose pages are looked at; they are in a namespace of their own, where nothing runs.
const PAGES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ing, labels: {a: b}, annotations: {x: "z"}}
spec:
  ingressClassName: class
  defaultBackend: {resource: {apiGroup: q.r, kind: K, name: object}}
  tls: [{hosts: [a.b, c.d], secretName: s}, {hosts: [e.f]}]
  rules:
  - host: a.b
    http: {paths: [{path: /x, pathType: Prefix, backend: {resource: {apiGroup: q.r, kind: K, name: object}}}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: class}
spec: {controller: a.b/c, parameters: {apiGroup: q.r, kind: K, name: object}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: policy}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {a: b}}, namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]
    ports: [{port: 80}, {port: 90, endPort: 95, protocol: UDP}]
  - {}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron, labels: {q: r}}
spec: {suspend: true, schedule: "*/5 * * * *", startingDeadlineSeconds: 9, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: busybox, command: [a]}]}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {completions: 3, completionMode: Indexed, suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: x, image: busybox}]}}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: rc}
spec: {replicas: 0, selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: x, image: busybox}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: hpa}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: nothere}
  maxReplicas: 4
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 1Gi}}}
  - {type: Pods, pods: {metric: {name: pp}, target: {type: AverageValue, averageValue: "3"}}}
  - {type: Object, object: {metric: {name: oo}, describedObject: {apiVersion: v1, kind: Service, name: web}, target: {type: Value, value: "3"}}}
  - {type: External, external: {metric: {name: ee}, target: {type: AverageValue, averageValue: "3"}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 60}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: pdb}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: "100", requests.cpu: "10"}, scopes: [NotTerminating]}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, max: {cpu: "2"}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: old, labels: {set: pruned}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 5
description: hello
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: lease}
spec: {holderIdentity: x}
---
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: jane}
spec:
  signerName: kubernetes.io/kube-apiserver-client
  request: REQUEST
  usages: [client auth]
"#;

/// A request for the certificate of `CN=jane, O=dev`.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlJQ1lqQ0NBVW9DQVFBd0hURU1NQW9HQTFVRUNnd0RaR1YyTVEwd0N3WURWUVFEREFScVlXNWxNSUlCSWpBTgpCZ2txaGtpRzl3MEJBUUVGQUFPQ0FROEFNSUlCQ2dLQ0FRRUFzbHJEWHY4OEp4anpYcVhPZThORDRnMmg2ay9nCktMMG1QWm9hRDRXZU1vY0I5ME1tSDVzRUsxWEhhS0YrZzZDcVRmcGI2NCtCWGFjcXNMampIOC96VUs2UjNSaXcKTE9PVlhmRFRncHM3NlhLY2c5WlVvaE52WHk1UkJyQW5ucmJlNW1GNzVsRXlyYTV6WUczcmlpQU9OWHA1YStUaQpzdlFxVnFGa3RQMy9hNWlnWkRkOHcyT1kvQ1FQRHhPcUpsTmZWbDI2RFRPb2p1eVpDcWFXZ0FmcUxzeUp5ZkNvCjM1S3h5SzltS1JaN29uaEh6V1RvNTNqNndsdnlxUUZmcmJ6am1UUXlTZWUxOWt3WSt4ajU1S256ZUZmVlE4blQKUUhrRDF1Q3U2UE5PcU1yWDhrYWVydmdua3NYRUx0RDBZcUVRdUtFVCtCaUlJejZSbVhpOEIrK1Bad0lEQVFBQgpvQUF3RFFZSktvWklodmNOQVFFTEJRQURnZ0VCQUpsN0xKUzhqL0M4djJKSXZoczd4bTA1MFdaMmNPT0VPWHQ3CmpiTFdoeDUvMktGY0lLMEVNb2FKM01VQW9aa2RTQSs2Y0lkZ3hReE1UODdkcWlGVTV5aTJVR1UwTlozOFRjSjgKUTBoaGFhdjZEb0c5QVJYZWk0cFU2eVVXS1V1N2J2WUpqeVZ6K2I5Y0VwTHR1YWttMGpvVmNkSmxYSzZURHl2bQpHcXBSbXkxQUU0cDFZMDlaVFZWVWdLTHk2TFdrdVg2ZVVHRVV6RFdOdWZlYjIwSE00K0ZmVGNLVWV3L0FwVVMrCjRBbEZOeGdpd3hjUGFNZDZiTnowVUVrTzZBbWpkSXo5ZUZjVVFMbmYxQ2gvblVyaFk1NjNYUjBZR3JDZzRZeEkKdHMwMkw0d2lhSmQyUHd3TnZwQ3lxci8zL1ZXZ2FtS0srM3k0QzB4Qkw0dlRReHJYZW9NPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

/// Commands about the pages' objects and about files; `DIR` stands for a directory with [`files`], `URL` for a server of them.
const FILES: &[&str] = &[
    "-n pages describe ing ing",
    "-n pages describe ingressclass class",
    "-n pages describe netpol policy",
    "-n pages describe cj cron",
    "-n pages describe job job",
    "-n pages describe rc rc",
    "-n pages describe hpa hpa",
    "-n pages describe pdb pdb",
    "-n pages describe quota quota",
    "-n pages describe limits limits",
    "-n pages describe lease lease",
    "describe ns pages",
    "describe priorityclass urgent",
    "describe csr jane",
    "describe validatingadmissionpolicy",
    "describe role -n kube-system",
    "describe clusterrolebinding cluster-admin",
    "certificate approve nothere",
    "certificate approve",
    "certificate approve jane",
    "certificate deny jane",
    "diff -f DIR/same.yaml",
    "diff -f DIR/changed.yaml",
    "diff -f DIR/changed.yaml --server-side --force-conflicts",
    "diff -f DIR/new.yaml",
    "diff -f DIR/changed.yaml -l x=y",
    "diff -f DIR/bad.yaml",
    "diff -f DIR/nothere.yaml",
    "diff -k DIR/production",
    "diff",
    "diff x",
    "diff --nothere",
    "diff -f DIR/same.yaml --force-conflicts",
    "diff -n pages -f DIR/pruned.yaml --prune -l set=pruned --prune-allowlist=core/v1/ConfigMap",
    "apply --prune -f DIR/same.yaml",
    "apply --prune -f DIR/same.yaml -l set=p --server-side",
    "apply --prune -f DIR/same.yaml -l set=p --force",
    "apply --all -l a=b -f DIR/same.yaml",
    "apply --prune --all -f DIR/same.yaml --prune-allowlist=x",
    "apply --prune --all -f DIR/same.yaml --prune-allowlist=core/v1/Frob",
    "-n pages apply --prune -l set=pruned -f DIR/pruned.yaml --prune-allowlist=core/v1/ConfigMap --dry-run=client",
    "-n pages apply --prune -l set=pruned -f DIR/pruned.yaml --prune-allowlist=core/v1/ConfigMap --dry-run=server",
    "kustomize DIR/production",
    "kustomize DIR/everything",
    "kustomize DIR/nothere",
    "kustomize DIR",
    "kustomize DIR/production DIR/everything",
    "kustomize DIR/unknown",
    "apply -k DIR/production --dry-run=server",
    "create -k DIR/production --dry-run=client -o name",
    "get -k DIR/production",
    "delete -k DIR/production --ignore-not-found",
    "apply -k DIR/nothere",
    "apply -k DIR/production -f DIR/same.yaml",
    "apply -k DIR/production -R",
    "apply -f URL/same.yaml --dry-run=server",
    "get -f URL/same.yaml -o name",
    "get -f URL/moved -o name",
    "create -f URL/nothere --dry-run=client",
    "kustomize DIR/twice",
    "replace -f URL/same.yaml --raw /api",
    "expose sts web --port=80",
    "expose deploy dep",
    "expose deploy dep --port=80 --dry-run=client -o yaml",
    "expose deploy dep --name=d2 --port=81 --target-port=http --type=NodePort --dry-run=client -o yaml -n default",
    "expose pod web-0 --name=x --dry-run=client -o yaml --cluster-ip=None --external-ip=1.2.3.4 --session-affinity=ClientIP -l a=b --selector=x=y",
    "expose svc web --name=x --protocol=UDP --dry-run=server",
    "expose deploy dep --port=80 --session-affinity=x",
    "expose deploy dep --port=a",
    "expose deploy dep --port=80 --selector=x",
    "expose deploy dep --port=80 --overrides='{\"metadata\":{\"labels\":{\"q\":\"r\"}}}' --dry-run=client -o yaml",
    "expose node nothere --port=1",
    "expose",
    "expose deploy",
    "autoscale sts web",
    "autoscale sts web --max=0",
    "autoscale sts web --max=1 --min=3",
    "autoscale sts web --max=3 --dry-run=client",
    "autoscale sts web --max=3 --dry-run=server",
    "autoscale sts web --max=x",
    "autoscale svc web --max=2",
    "autoscale sts nothere --max=2",
    "autoscale --max=3",
    "debug",
    "debug web-0 --profile=general",
    "debug web-0 --image=busybox --same-node --profile=general",
    "debug web-0 --image=busybox --profile=x",
    "debug web-0 --image=busybox -t --profile=general",
    "debug web-0 --copy-to=x --profile=general",
    "debug nothere --image=busybox --profile=general",
    "debug cm/cm --image=busybox --profile=general",
    "replace --grace-period=3 -f DIR/same.yaml",
    "replace --force --dry-run=client -f DIR/same.yaml",
    "replace --raw /api -f DIR/same.yaml -f x",
    "create --raw /api/v1/namespaces/default/configmaps -f DIR/raw.json",
    "create --raw /x",
    "delete --raw /api/v1/namespaces/default/configmaps/nothere",
    "get --raw /x y",
    "logs node/NODE",
    "logs cm/cm",
    "attach node/NODE",
    "attach pending",
    "exec cm/cm -- ls",
    "create role r --verb=get,list --resource=pods,sts,deployments.apps/scale --dry-run=client -o yaml",
    "create role r --verb=get --resource=nothere --dry-run=client",
    "create role r --dry-run=client",
    "create clusterrole r --verb=get --non-resource-url=/healthz,/x --dry-run=client -o yaml",
    "create ingress i --rule=a.b/x*=web:80,tls=s --rule=a.b/y=web:http --class=c --annotation=k=v --dry-run=client -o yaml",
    "create ingress i --rule=nonsense --dry-run=client",
    "create priorityclass p --value=3 --description=x --dry-run=client -o yaml",
    "create secret docker-registry d --docker-server=r --docker-username=u --docker-password=p --docker-email=e --dry-run=client -o yaml",
    "plugin list",
];

/// Files for [`FILES`], by name.
fn files() -> Vec<(&'static str, String)> {
    let example = |name: &str| std::fs::read_to_string(root().join("examples/kustomize").join(name)).unwrap();
    let config = |name: &str, data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: \"{data}\"}}\n")
    };
    let secret = |data: &str| {
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: shown}}\nstringData: {{a: \"{data}\", b: x}}\n")
    };
    vec![
        ("same.yaml", config("shown", "1") + &secret("1")),
        ("changed.yaml", config("shown", "2") + &secret("2")),
        (
            "new.yaml",
            config("new", "1") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: new}\nstringData: {a: b}\n",
        ),
        ("bad.yaml", config("BAD", "1")),
        ("pruned.yaml", config("kept", "1").replace("{name: kept}", "{name: kept, labels: {set: pruned}}")),
        ("raw.json", "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"cm\"}}".to_owned()),
        ("base/kustomization.yaml", example("base/kustomization.yaml")),
        ("base/web.yaml", example("base/web.yaml")),
        ("production/kustomization.yaml", example("production/kustomization.yaml")),
        ("everything/kustomization.yaml", EVERYTHING.to_owned()),
        ("everything/all.yaml", OBJECTS.to_owned()),
        ("everything/settings.env", "# a comment\nE1=v=w\n E2=\nE3\n".to_owned()),
        ("everything/my.cnf", "[mysqld]\nx=y\n".to_owned()),
        ("part/kustomization.yaml", PART.to_owned()),
        ("twice/kustomization.yaml", "resources: [../base, ../base]\n".to_owned()),
        ("unknown/kustomization.yaml", "frob: 1\n".to_owned()),
    ]
}

const PART: &str = "
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
commonAnnotations: {part: here}
";

/// Most of what a kustomization can say.
const EVERYTHING: &str = r#"
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [all.yaml, ../production]
components: [../part]
namePrefix: a-
nameSuffix: -z
namespace: prod
labels:
- {pairs: {env: prod}}
- {pairs: {tier: db}, includeTemplates: true}
- {pairs: {sel: s}, includeSelectors: true}
commonAnnotations: {note: hi}
images:
- {name: nginx, newTag: "1.22"}
- {name: busybox, newName: mirror/bb, digest: "sha256:0123456789012345678901234567890123456789012345678901234567890123"}
replicas: [{name: dep, count: 5}]
configMapGenerator:
- {name: cm, behavior: merge, literals: [a=2, z=9]}
- {name: files, files: [my.cnf, k=my.cnf], envs: [settings.env], options: {labels: {l: m}, immutable: true}}
secretGenerator:
- name: long
  literals: [long=0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789]
- {name: plain, type: kubernetes.io/x, literals: ['a="b"'], options: {disableNameSuffixHash: true}}
generatorOptions: {annotations: {gen: "1"}}
patches:
- patch: |
    apiVersion: apps/v1
    kind: StatefulSet
    metadata: {name: web}
    spec:
      template:
        spec:
          containers:
          - {name: side, image: busybox, envFrom: [{configMapRef: {name: files}}, {secretRef: {name: plain}}]}
          - name: nginx
            env: [{$patch: delete, name: P}, {name: B, value: c}]
            readinessProbe: null
- target: {kind: StatefulSet|Deployment, name: .*}
  patch: |
    - op: add
      path: /metadata/annotations
      value: {json: patched}
- patch: |
    apiVersion: v1
    kind: Pod
    metadata: {name: pending}
    $patch: delete
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
    "expose deploy dep --name=exposed --port=80",
    "expose deploy dep --name=exposed --port=80",
    "autoscale sts web --max=5 --min=2",
    "autoscale sts web --max=5 --min=2",
    "get hpa web -o jsonpath={.spec.maxReplicas}",
    "delete hpa web",
    "create configmap old --from-literal=a=b --save-config",
    "apply --prune --all --prune-allowlist=core/v1/ConfigMap -f -",
    "replace --force -f DIR/same.yaml",
    "replace --force --grace-period=0 -f DIR/same.yaml -o name",
    "apply -k DIR/production",
    "diff -k DIR/production",
    "delete -k DIR/production",
    "delete pvc -l app=web --wait=false",
    "wait --for=condition=Ready pod/web-0 --timeout=60s",
    "debug web-0 -c look --image=busybox:1.36 --target=nginx --profile=general -- sleep 100000",
    "wait --for=jsonpath={.status.ephemeralContainerStatuses[0].state.running} pod/web-0 --timeout=60s",
    "exec web-0 -c look -- hostname",
    "get pod web-0 -o jsonpath={.spec.ephemeralContainers[*].securityContext}",
    "debug web-0 --copy-to=copy --set-image=*=busybox:1.36 --profile=general -c nginx -- sleep 100000",
    "get pod copy -o jsonpath={.spec.containers[*].image}{.spec.shareProcessNamespace}{.metadata.labels}",
    "delete pod copy --wait=false --grace-period=1",
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
        Some((_, text)) => format!("error: {}", text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"")),
        None => line.strip_prefix("Error: ").map_or_else(|| line.to_owned(), |text| format!("error: {text}")),
    };
    let of_log = |line: &&str| !(line.starts_with('W') && line.contains("] Object ("));
    let lines: Vec<String> = done.stderr.trim_end().lines().filter(of_log).map(line).collect();
    done.stderr = lines.join("\n");
    let lines: Vec<String> =
        done.stdout.split('\n').filter(|line| !line.starts_with("Time Zone:")).map(settled).collect();
    done.stdout = lines.join("\n");
    done
}

/// A line without what is another with each run: names and times of temporary files, what a dry run makes up.
fn settled(line: &str) -> String {
    if ["+  uid: ", "+  creationTimestamp: ", "-  uid: ", "-  creationTimestamp: "]
        .iter()
        .any(|head| line.starts_with(head))
    {
        return line.split(':').next().unwrap_or_default().to_owned();
    }
    if !(line.contains("/LIVE-") || line.contains("/MERGED-")) {
        return line.to_owned();
    }
    let line = line.split('\t').next().unwrap_or_default();
    let word =
        |word: &str| match word.split('/').position(|part| part.starts_with("LIVE-") || part.starts_with("MERGED-")) {
            Some(at) => {
                let name = |part: &str| part.split('-').next().unwrap_or_default().to_owned();
                word.split('/').skip(at).map(name).collect::<Vec<_>>().join("/")
            }
            None => word.to_owned(),
        };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Writes [`files`], and serves them.
fn with_files(cluster: &Cluster) -> (String, String) {
    let directory = cluster.directory().join("files");
    for (name, text) in files() {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let root = directory.clone();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream, &root)));
    (directory.display().to_string(), url)
}

/// Answers one request for a file of a directory.
fn serve(mut stream: TcpStream, root: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    // The head ends with an empty line.
    let _ = lines.find(String::is_empty);
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (status, more, body) = match (&*path, std::fs::read(root.join(&path))) {
        ("moved", _) => ("302 Found", "Location: /same.yaml\r\n", Vec::new()),
        (_, Ok(body)) => ("200 OK", "", body),
        (_, Err(_)) => ("404 Not Found", "", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client that has gone is no fault of the test.
    let _ = stream.write_all(&[head.into_bytes(), body].concat());
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
    let _ = kubectl.ok("create namespace pages");
    let pages = kubectl.run_with_input("-n pages apply -f -", &PAGES.replace("REQUEST", REQUEST));
    assert_eq!(pages.code, 0, "{pages:?}");
    let (directory, url) = with_files(&cluster);
    let _ = kubectl.ok(&format!("apply -f {directory}/same.yaml"));
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    let placed = |command: &&str| command.replace("DIR", &directory).replace("URL", &url).replace("NODE", &node);
    let mut differences = Vec::new();
    let commands: Vec<String> = LOOKS.iter().chain(FILES).map(placed).collect();
    for command in &commands {
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
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), commands.len(), differences.join("\n"));
}

#[test]
fn a_container_for_debugging_sees_the_processes_of_its_target() {
    let (cluster, kubectl) = cluster();
    let ours = Kubectl { program: PathBuf::from(env!("CARGO_BIN_EXE_stead")), kubeconfig: cluster.kubeconfig() };
    let link = cluster.data_dir().join("kubectl");
    std::os::unix::fs::symlink(&ours.program, &link).unwrap();
    let ours = Kubectl { program: link, ..ours };
    let _ = kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {a: b}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "busybox:1.36", command: [sh, -c, "sleep 4242"]}]
"#,
    );
    let _ = kubectl.ok("wait --for=condition=Ready pod/p --timeout=60s");
    let _ = ours.ok("debug p -c look --image=busybox:1.36 --target=main -- sleep 1717");
    let seen = ours.eventually("exec p -c look -- ps", |text| text.contains("sleep 1717"));
    assert!(seen.contains("sleep 4242"), "{seen}");
    let _ = ours.ok("debug p -c alone --image=busybox:1.36 -- sleep 1717");
    let seen = ours.eventually("exec p -c alone -- ps", |text| text.contains("sleep 1717"));
    assert!(!seen.contains("sleep 4242"), "{seen}");
    // The target goes on when a container that sees its processes ends.
    let done =
        ours.run("debug p -c short --image=busybox:1.36 --target=main --attach -q -- sh -c 'sleep 4343 & echo gone'");
    assert_eq!((done.code, done.stdout.contains("gone")), (0, true), "{done:?}");
    let seen = ours.ok("exec p -c look -- ps");
    assert!(seen.contains("sleep 4242") && !seen.contains("sleep 4343"), "{seen}");
    assert_eq!(kubectl.ok("get pod p -o jsonpath={.status.containerStatuses[0].restartCount}"), "0");
    let terminal = ours.on_terminal("debug p -it -q -c term --image=busybox:1.36 -- sh", "echo a-$((1+1))\nexit\n");
    assert!(terminal.stdout.contains("a-2"), "{terminal:?}");
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    let told = ours.ok(&format!("debug node/{node} --image=busybox:1.36 --attach -- ls /host/etc/hostname"));
    assert!(told.contains("/host/etc/hostname") && told.contains("Creating debugging pod node-debugger-"), "{told}");
}

#[test]
fn diff_needs_no_program_and_proxy_answers_this_machine_only() {
    let (cluster, kubectl) = cluster();
    let ours = |path: &str, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command.arg("kubectl").args(words).env("KUBECONFIG", cluster.kubeconfig()).env("PATH", path);
        command
    };
    let (directory, _) = with_files(&cluster);
    let _ = kubectl.ok(&format!("apply -f {directory}/same.yaml"));
    let file = format!("{directory}/changed.yaml");
    let seen = |path: &str| {
        let output = ours(path, &["diff", "-f", &file]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text.lines().map(settled).collect::<Vec<_>>(), output.status.code())
    };
    let with_diff = seen("/usr/bin:/bin");
    assert_eq!(with_diff.1, Some(1), "{with_diff:?}");
    assert_eq!(seen("/nowhere"), with_diff);
    let output =
        ours("/usr/bin:/bin", &["diff", "-f", &file]).env("KUBECTL_EXTERNAL_DIFF", "nothere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text, "error: failed to run \"nothere\": executable file not found in $PATH\n");

    let mut proxy = ours("/usr/bin:/bin", &["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let _ = BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("Starting to serve on ").unwrap().to_owned();
    let asked = |method: &str, path: &str, host: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = asked("GET", "/api/v1/namespaces/default/configmaps/shown", "localhost");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"name\":\"shown\""), "{answer}");
    let answer = asked("GET", "/api/v1/namespaces/default/configmaps/nothere", "127.0.0.1:1");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
    for (path, host) in [("/api/v1/pods", "evil.example"), ("/api/v1/namespaces/default/pods/x/exec", "localhost")] {
        let answer = asked("GET", path, host);
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden") && answer.ends_with("Forbidden\n"), "{answer}");
    }
    proxy.kill().unwrap();
    let _ = proxy.wait().unwrap();

    // A shell is told the names that there are.
    let completed = |words: &[&str]| {
        let output = ours("/usr/bin:/bin", &[&["__complete"], words].concat()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(completed(&["describe", "cm", "sh"]), "shown\n:4\n");
    assert_eq!(completed(&["get", "cm/sh"]), "cm/shown\n:4\n");
    assert_eq!(completed(&["autoscale", "state"]), "statefulset\n:4\n");
    assert_eq!(completed(&["get", "pods", "-n", "kube-p"]), "kube-public\n:4\n");
    assert_eq!(completed(&["diff", "-f", ""]), ":0\n");
}

#[test]
fn acceptance_7_our_command_line_changes_as_kubectl_does() {
    let (cluster, kubectl) = cluster();
    let Some((stock, ours)) = programs(&cluster, &kubectl) else { return };
    let _ = kubectl.ok("create namespace side-a");
    let _ = kubectl.ok("create namespace side-b");
    let (directory, _) = with_files(&cluster);
    let mut differences = Vec::new();
    for command in CHANGES {
        let command = command.replace("DIR", &directory);
        let one = |program: &Kubectl, namespace: &str| {
            let mut done = normal(program.run_with_input(&format!("-n {namespace} {command}"), OBJECTS));
            done.stdout = done.stdout.replace("side-b", "side-a");
            done.stderr = done.stderr.replace("side-b", "side-a");
            done
        };
        let (stock, ours) = (one(&stock, "side-a"), one(&ours, "side-b"));
        if stock != ours {
            differences.push(told(&command, &stock, &ours));
        }
    }
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), CHANGES.len(), differences.join("\n"));
    let left = |namespace: &str| kubectl.ok(&format!("get sts,deploy,svc,cm,secret,sa,pvc -n {namespace} -o name"));
    assert_eq!(left("side-a"), left("side-b"), "both leave the same behind");
}
