//! The commands of kubectl that make or change objects from flags alone, and those that ask the server something.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::eventually::eventually;
use pagurus_tests::server::Server;
use serde_json::Value;

use super::{json, refused, with_each};

/// A command; the object that it makes or changes; a place in that; and what is there afterwards.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Each generator of `kubectl create`, and `run`, `expose`, `autoscale`.
const MAKE: &[Row] = &[
    (
        "create clusterrole cr --verb=get,list --resource=pods,deployments.apps",
        "clusterrole/cr",
        "/rules/1/resources/0",
        "\"deployments\"",
    ),
    (
        "create clusterrole ag --aggregation-rule=a=b",
        "clusterrole/ag",
        "/aggregationRule/clusterRoleSelectors/0/matchLabels/a",
        "\"b\"",
    ),
    (
        "create clusterrole nr --verb=get --non-resource-url=/logs/*",
        "clusterrole/nr",
        "/rules/0/nonResourceURLs/0",
        "\"/logs/*\"",
    ),
    (
        "create clusterrolebinding crb --clusterrole=cr --user=u --group=g --serviceaccount=default:s",
        "clusterrolebinding/crb",
        "/subjects/2/namespace",
        "\"default\"",
    ),
    ("create configmap c --from-literal=a=1", "configmap/c", "/data/a", "\"1\""),
    ("create cronjob cj --image=i:1 --schedule=@hourly", "cronjob/cj", "/spec/schedule", "\"@hourly\""),
    (
        "create deployment d --image=i:1 --replicas=2 --port=80",
        "deployment/d",
        "/spec/template/spec/containers/0/ports/0/containerPort",
        "80",
    ),
    (
        "create ingress in --class=k --rule=a.test/x*=svc:80,tls=t",
        "ingress/in",
        "/spec/rules/0/http/paths/0/pathType",
        "\"Prefix\"",
    ),
    ("create job j --image=i:1 -- true", "job/j", "/spec/template/spec/containers/0/command/0", "\"true\""),
    (
        "create job j2 --from=cronjob/cj",
        "job/j2",
        "/metadata/annotations/cronjob.kubernetes.io~1instantiate",
        "\"manual\"",
    ),
    ("create namespace n", "namespace/n", "/status/phase", "\"Active\""),
    (
        "create poddisruptionbudget p --selector=app=d --min-available=50%",
        "pdb/p",
        "/spec/minAvailable",
        "\"50%\"",
    ),
    (
        "create priorityclass pc --value=7 --preemption-policy=Never",
        "priorityclass/pc",
        "/preemptionPolicy",
        "\"Never\"",
    ),
    ("create quota q --hard=pods=9 --scopes=BestEffort", "quota/q", "/spec/scopes/0", "\"BestEffort\""),
    (
        "create role r --verb=get --resource=pods/log --resource-name=x",
        "role/r",
        "/rules/0/resources/0",
        "\"pods/log\"",
    ),
    ("create rolebinding rb --role=r --user=u", "rolebinding/rb", "/roleRef/kind", "\"Role\""),
    ("create secret generic s --from-literal=a=1 --type=a.test/b", "secret/s", "/data/a", "\"MQ==\""),
    (
        "create secret docker-registry dr --docker-server=h --docker-username=u --docker-password=p",
        "secret/dr",
        "/type",
        "\"kubernetes.io/dockerconfigjson\"",
    ),
    ("create secret tls t --cert=CERTIFICATE --key=KEY", "secret/t", "/type", "\"kubernetes.io/tls\""),
    ("create service clusterip sc --tcp=80:8080", "service/sc", "/spec/ports/0/targetPort", "8080"),
    ("create service clusterip sh --clusterip=None", "service/sh", "/spec/clusterIPs/0", "\"None\""),
    (
        "create service nodeport sn --tcp=80 --node-port=30123",
        "service/sn",
        "/spec/ports/0/nodePort",
        "30123",
    ),
    ("create service loadbalancer sl --tcp=80", "service/sl", "/spec/type", "\"LoadBalancer\""),
    (
        "create service externalname se --external-name=a.test",
        "service/se",
        "/spec/externalName",
        "\"a.test\"",
    ),
    ("create serviceaccount sa", "serviceaccount/sa", "/metadata/name", "\"sa\""),
    (
        "run pod --image=i:1 --port=80 --labels=a=b --env=A=1 --expose --overrides={\"spec\":{\"serviceAccountName\":\"sa\"}}",
        "service/pod",
        "/spec/selector/a",
        "\"b\"",
    ),
    (
        "run two --image=i:1 --restart=Never --overrides={\"spec\":{\"serviceAccountName\":\"sa\"}} --command -- a b",
        "pod/two",
        "/spec/containers/0/command/1",
        "\"b\"",
    ),
    (
        "expose deployment d --port=80 --target-port=http --name=ex",
        "service/ex",
        "/spec/ports/0/targetPort",
        "\"http\"",
    ),
    ("autoscale deployment d --max=5 --min=2", "hpa/d", "/spec/maxReplicas", "5"),
    ("set image deploy/d i=i:2", "deploy/d", "/spec/template/spec/containers/0/image", "\"i:2\""),
    (
        "set env deploy/d --from=configmap/c",
        "deploy/d",
        "/spec/template/spec/containers/0/env/0/valueFrom/configMapKeyRef/key",
        "\"a\"",
    ),
    (
        "set resources deploy/d --limits=cpu=1,memory=1Gi --requests=cpu=100m",
        "deploy/d",
        "/spec/template/spec/containers/0/resources/limits/memory",
        "\"1Gi\"",
    ),
    ("set selector svc sc a=b", "svc/sc", "/spec/selector/a", "\"b\""),
    ("set serviceaccount deploy/d sa", "deploy/d", "/spec/template/spec/serviceAccountName", "\"sa\""),
    (
        "set subject rolebinding/rb --serviceaccount=default:sa",
        "rolebinding/rb",
        "/subjects/1/kind",
        "\"ServiceAccount\"",
    ),
    ("scale deploy/d --replicas=4 --current-replicas=2", "deploy/d", "/spec/replicas", "4"),
    ("rollout pause deploy/d", "deploy/d", "/spec/paused", "true"),
    ("rollout resume deploy/d", "deploy/d", "/spec/paused", "null"),
    ("debug two --image=i:1 --container=dbg", "pod/two", "/spec/ephemeralContainers/0/name", "\"dbg\""),
    ("taint node one a=b:NoSchedule", "node/one", "/spec/taints/0/effect", "\"NoSchedule\""),
    ("taint node one a-", "node/one", "/spec/taints/1", "null"),
    ("cordon one", "node/one", "/spec/unschedulable", "true"),
    ("uncordon one", "node/one", "/spec/unschedulable", "null"),
    ("certificate approve yes", "csr/yes", "/status/conditions/0/type", "\"Approved\""),
    ("certificate deny no", "csr/no", "/status/conditions/0/type", "\"Denied\""),
    ("label deploy --all a=1", "deploy/d", "/metadata/labels/a", "\"1\""),
    ("annotate deploy --selector a=1 b=1", "deploy/d", "/metadata/annotations/b", "\"1\""),
];

fn file(server: &Server, name: &str, text: &str) -> Result<String> {
    let path = server.data().join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// What the commands of the table need: files, a node, certificate requests.
fn prepare(server: &Server) -> Result<[String; 2]> {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()])?;
    let files = [
        file(server, "tls.crt", &made.cert.pem())?,
        file(server, "tls.key", &made.signing_key.serialize_pem())?,
    ];
    let request = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&made.signing_key)?.pem()?;
    let request = serde_json::to_value(k8s_openapi::ByteString(request.into_bytes()))?;
    let mut text = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\n".to_owned();
    for name in ["yes", "no"] {
        text += &format!(
            "---\napiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: '{name}'}}\n\
             spec: {{signerName: a.test/b, usages: [client auth], request: {request}}}\n"
        );
    }
    server.ok(&["create", "-f", &file(server, "prepared.yaml", &text)?])?;
    Ok(files)
}

#[test]
fn flags_alone_make_objects() -> Result<()> {
    with_each("apiserver", |server, _| {
        let [certificate, key] = prepare(server)?;
        for (line, object, place, wanted) in MAKE {
            let words = line.split(' ').map(|w| w.replace("CERTIFICATE", &certificate).replace("KEY", &key));
            let words: Vec<String> = words.collect();
            server.ok(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            let now = json(server, &["get", object])?;
            let found = now.pointer(place).unwrap_or(&Value::Null).to_string();
            ensure!(found == *wanted, "{line}: {place} is {found}: {now}");
        }
        Ok(())
    })
}

#[test]
fn rollouts_go_forth_and_back() -> Result<()> {
    with_each("apiserver,controllers", |server, _| {
        server.ok(&["create", "deployment", "d", "--image=i:1"])?;
        let sets = |count: usize| {
            eventually("the ReplicaSets are there", Duration::from_secs(30), || {
                let sets = json(server, &["get", "rs", "-l", "app=d"])?;
                Ok((sets["items"].as_array().map(Vec::len) == Some(count)).then_some(()))
            })
        };
        sets(1)?;
        server.ok(&["set", "image", "deploy/d", "i=i:2"])?;
        sets(2)?;
        let told = server.ok(&["rollout", "history", "deploy/d"])?;
        ensure!(told.contains("\n1 ") && told.contains("\n2 "), "{told}");
        let told = server.ok(&["rollout", "history", "deploy/d", "--revision=1"])?;
        ensure!(told.contains("i:1"), "{told}");
        let told = server.ok(&["rollout", "status", "deploy/d", "--watch=false"])?;
        ensure!(told.contains("Waiting for deployment \"d\" rollout to finish"), "{told}");
        server.ok(&["rollout", "undo", "deploy/d"])?;
        let image = "-o=jsonpath={.spec.template.spec.containers[0].image}";
        ensure!(server.ok(&["get", "deploy/d", image])? == "i:1", "undone");
        server.ok(&["rollout", "restart", "deploy/d"])?;
        sets(3)?;
        server.ok(&["autoscale", "deploy/d", "--max=3"])?;
        // A bare pod is nobody's to make again: it goes only by force. Its node has no kubelet to end it.
        server.ok(&["create", "-f", &file(server, "bare.yaml", BARE)?])?;
        let said = refused(server, &["drain", "one", "--timeout=10s"])?;
        ensure!(said.contains("cannot delete") && said.contains("use --force"), "{said}");
        server.ok(&["drain", "one", "--force", "--ignore-daemonsets", "--timeout=30s"])?;
        let said = refused(server, &["get", "pod", "bare"])?;
        ensure!(said.contains("not found"), "{said}");
        ensure!(server.ok(&["get", "node", "one"])?.contains("SchedulingDisabled"), "drained");
        Ok(())
    })
}

const BARE: &str = "
apiVersion: v1
kind: Node
metadata: {name: one}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {nodeName: one, terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, containers: [{name: a, image: 'i:1'}]}
";

#[test]
fn questions_are_answered() -> Result<()> {
    with_each("apiserver", |server, minor| {
        server.ok(&["create", "serviceaccount", "sa"])?;
        server.ok(&["create", "role", "r", "--verb=list", "--resource=pods"])?;
        server.ok(&["create", "rolebinding", "rb", "--role=r", "--serviceaccount=default:sa"])?;
        let sa = "--as=system:serviceaccount:default:sa";
        for (words, wanted) in [
            (&["auth", "can-i", "create", "pods"][..], "yes"),
            (&["auth", "can-i", "list", "pods", sa], "yes"),
            (&["auth", "can-i", "--list", sa], "[list]"),
            (&["auth", "whoami"], "system:masters"),
            (&["auth", "whoami", sa], "system:serviceaccounts:default"),
            (&["api-versions"], "resource.k8s.io/v1"),
            (
                &["api-resources", "--namespaced=false", "--api-group=rbac.authorization.k8s.io"],
                "ClusterRole",
            ),
            (&["api-resources", "-o", "wide"], "deletecollection"),
            (&["cluster-info"], "is running at"),
            (&["version"], "Server Version"),
            (&["get", "--raw", "/version"], "gitVersion"),
            (&["get", "all", "-A"], "service/kubernetes"),
            (&["config", "view", "--minify"], "current-context"),
            (&["options"], "--as-group"),
            (&["explain", "pods.spec.containers.resources"], "requests"),
            (&["get", "sa", "--sort-by=.metadata.name", "--show-labels"], "LABELS"),
            (&["get", "sa", "sa", "--show-kind", "--no-headers"], "serviceaccount/sa"),
            (&["get", "sa", "-L", "team", "--chunk-size=1"], "TEAM"),
        ] {
            // Before 1.28 it asked for versions that are gone.
            if minor < 28 && words.starts_with(&["auth", "whoami"]) {
                println!("kubectl 1.{minor}: {words:?} is left out");
                continue;
            }
            let said = server.ok(words)?;
            ensure!(said.contains(wanted), "{words:?}: {said}");
        }
        let out = server.kubectl(&["auth", "can-i", "delete", "pods", sa])?;
        ensure!(!out.status.success() && out.stdout.starts_with(b"no"), "{out:?}");
        let token = server.ok(&["create", "token", "sa", "--duration=10m", "--audience=a.test"])?;
        ensure!(token.trim().split('.').count() == 3, "{token}");
        for words in
            [&["top", "nodes"][..], &["get", "nothing"], &["logs", "nobody"], &["get", "pods/nobody"]]
        {
            let said = refused(server, words)?;
            ensure!(
                ["Metrics API not available", "have a resource type", "not found"]
                    .iter()
                    .any(|s| said.contains(s)),
                "{words:?}: {said}"
            );
        }
        // What `reconcile` adds to a role that is there.
        let wider = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: default}\n\
                     rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n";
        server.ok(&["auth", "reconcile", "-f", &file(server, "role.yaml", wider)?])?;
        ensure!(server.ok(&["auth", "can-i", "get", "pods", sa])?.contains("yes"), "reconciled");
        server.ok(&[
            "cluster-info",
            "dump",
            "--output-directory",
            &server.data().join("dump").display().to_string(),
        ])?;
        events_are_told(server)
    })
}

fn events_are_told(server: &Server) -> Result<()> {
    let event = "apiVersion: v1\nkind: Event\nmetadata: {name: e}\ntype: Warning\nreason: Tried\nmessage: it was tried\n\
                 involvedObject: {kind: ServiceAccount, apiVersion: v1, namespace: default, name: sa}\ncount: 2\n\
                 firstTimestamp: 2026-01-01T00:00:00Z\nlastTimestamp: 2026-01-01T00:01:00Z\n";
    server.ok(&["create", "-f", &file(server, "event.yaml", event)?])?;
    for words in [
        &["events"][..],
        &["events", "--for=serviceaccount/sa", "--types=Warning"],
        &["get", "events", "--field-selector=involvedObject.name=sa"],
    ] {
        let said = server.ok(words)?;
        ensure!(said.contains("Tried") && said.contains("it was tried"), "{words:?}: {said}");
    }
    Ok(())
}

/// A program that goes on until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_proxy_hands_requests_on() -> Result<()> {
    with_each("apiserver,controllers", |server, _| {
        let mut proxy = server.command(&["proxy", "--port=0"])?;
        let mut proxy = Running(proxy.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let mut line = String::new();
        BufReader::new(proxy.0.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().context("no address")?.to_owned();
        let ask = |path: &str| -> Result<String> {
            let mut stream = TcpStream::connect(&address).with_context(|| format!("connect: {line}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask("/api/v1/namespaces/kube-system")?;
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"kind\":\"Namespace\""), "{answer}");
        let answer = ask("/api/v1/namespaces?watch=true&timeoutSeconds=1")?;
        ensure!(answer.contains("\"type\":\"ADDED\""), "{answer}");
        let answer = ask("/apis/nothing.test/v1")?;
        ensure!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        Ok(())
    })
}
