//! What containers see inside, and what they leave behind. On the runtime in memory only what they are given is checked;
//! on a real one the containers look for themselves.

use pagurus_cri_api::v1;

use super::*;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: mounting needs root");
    }
    root
}

/// Has the container end as its script would.
async fn through(node: &Node, pod: &str, name: &str, code: i32) {
    if let Some(fake) = &node.fake {
        node.until(pod, "running", |pod| container(pod, name)["state"]["running"].is_object()).await;
        assert!(fake.exit_container(name, code));
    }
}

fn look(script: &str) -> Value {
    json!({"name": "app", "command": ["sh", "-ec", script]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_and_arguments() {
    let node = Node::start();
    node.objects.config_map("cm", &[("k", "v")]);
    let mut app = look(
        "test \"$A$B$K$N\" = 11-vx -a \"$0\" = 1-arg -a \"$(pwd)\" = /tmp -a $KUBERNETES_SERVICE_HOST = 10.96.0.1",
    );
    app["args"] = json!(["$(A)-arg"]);
    app["workingDir"] = "/tmp".into();
    app["env"] = json!([
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-"},
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
        {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    node.create("x", json!({"containers": [app], "restartPolicy": "Never"}));
    through(&node, "x", "app", 0).await;
    let pod = node.until("x", "ended", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(phase(&pod), "Succeeded", "{pod:#}");
    if let Some(fake) = &node.fake {
        let config = fake.container_config("app").unwrap();
        let value = |name: &str| config.envs.iter().find(|env| env.key == name).map(|env| env.value.clone());
        assert_eq!(value("B").as_deref(), Some("1-"));
        assert_eq!(value("KUBERNETES_SERVICE_PORT").as_deref(), Some("443"));
        assert_eq!(config.args, ["1-arg"]);
        assert_eq!(config.log_path, "app/0.log");
    }
    node.delete("x", 0);
    node.until_gone("x").await;
    node.until_no_trace("x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    node.objects.config_map("cm", &[("k", "v"), ("other", "o")]);
    let mut app = look(
        "test \"$(cat /cm/k)\" = v; test \"$(cat /sub)\" = o; test -d /disk/deep; echo x > /disk/f; \
         test \"$(cat /token/token)\" = 'token 1 for vault'; test \"$(cat /dw/l)\" = 'b'; \
         grep -q 'Kubernetes-managed' /etc/hosts; ! touch /cm/new 2>/dev/null; ! touch /ro/new 2>/dev/null; \
         test $(df -k /memory | tail -1 | awk '{print $2}') = 1024; test \"$(stat -c %g /disk)\" = 4242",
    );
    app["volumeMounts"] = json!([
        {"name": "cm", "mountPath": "/cm"}, {"name": "cm", "mountPath": "/sub", "subPath": "other"},
        {"name": "disk", "mountPath": "/disk"}, {"name": "disk", "mountPath": "/deep", "subPathExpr": "$(D)"},
        {"name": "disk", "mountPath": "/ro", "readOnly": true},
        {"name": "memory", "mountPath": "/memory"}, {"name": "token", "mountPath": "/token"}, {"name": "dw", "mountPath": "/dw"},
    ]);
    app["env"] = json!([{"name": "D", "value": "deep"}]);
    let token =
        json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
    node.create("v", json!({"containers": [app], "restartPolicy": "Never", "securityContext": {"fsGroup": 4242}, "volumes": [
        {"name": "cm", "configMap": {"name": "cm"}}, {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "dw", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}},
    ]}));
    // The label comes after the pod: files follow.
    node.api.change("v", |pod| pod["metadata"]["labels"] = json!({"a": "b"}));
    through(&node, "v", "app", 0).await;
    let pod = node.until("v", "ended", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(phase(&pod), "Succeeded", "{pod:#}");
    if let Some(fake) = &node.fake {
        let mounts = fake.container_config("app").unwrap().mounts;
        let at = |path: &str| {
            mounts.iter().find(|mount| mount.container_path == path).cloned().unwrap_or_default()
        };
        assert!(at("/cm").readonly && at("/ro").readonly && !at("/disk").readonly);
        assert!(at("/deep").host_path.ends_with("/volume-subpaths/disk/app/3"), "{}", at("/deep").host_path);
    }
    node.delete("v", 0);
    node.until_gone("v").await;
    node.until_no_trace("v").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_before_they_expire() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let mut app = look("trap 'exit 0' TERM; while :; do sleep 0.1; done");
    app["volumeMounts"] = json!([{"name": "t", "mountPath": "/t"}]);
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 2}});
    node.create(
        "t",
        json!({"containers": [app], "terminationGracePeriodSeconds": 1, "volumes": [
            {"name": "t", "projected": {"sources": [token]}},
        ]}),
    );
    node.until("t", "ready", is_ready).await;
    let file = node.dirs.pod(&uid("t")).join("volumes/kubernetes.io~projected/t/token");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    let first = text();
    assert!(first.starts_with("token 1"), "{first}");
    node.eventually("a new token", async || text() > first).await;
    node.delete("t", 1);
    node.until_gone("t").await;
    node.until_no_trace("t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_words() {
    let node = Node::start();
    let mut spoken = look("echo -n farewell > /last; exit 3");
    spoken["terminationMessagePath"] = "/last".into();
    let mut logged = look("echo something; exit 4");
    logged["name"] = "logged".into();
    logged["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    node.create("w", json!({"containers": [spoken, logged], "restartPolicy": "Never"}));
    if let Some(fake) = &node.fake {
        node.until("w", "running", is_ready).await;
        let mounts = fake.container_config("app").unwrap().mounts;
        let file = mounts.iter().find(|mount| mount.container_path == "/last").unwrap();
        assert!(file.host_path.ends_with("/containers/app/0"));
        fake.exit_container("app", 3);
        fake.exit_container("logged", 4);
    }
    let pod = node.until("w", "failed", |pod| phase(pod) == "Failed").await;
    let end = |name: &str| container(&pod, name)["state"]["terminated"].clone();
    assert_eq!((&end("app")["exitCode"], &end("logged")["exitCode"]), (&json!(3), &json!(4)));
    if node.fake.is_none() {
        assert_eq!(end("app")["message"], "farewell");
        assert_eq!(end("logged")["message"], "something\n");
    }
    node.delete("w", 0);
    node.until_gone("w").await;
    node.until_no_trace("w").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powers_and_limits() {
    let node = Node::start();
    let mut app = look(
        "test $(id -u) = 1000 -a $(id -g) = 3000; id -G | grep -q 4000; ! touch /x 2>/dev/null; \
         grep -q 'NoNewPrivs:.1' /proc/self/status; grep -q 'CapBnd:.0000000000000000' /proc/self/status; \
         grep -q 'Seccomp:.2' /proc/self/status; test $(cat /proc/self/oom_score_adj) -gt 2",
    );
    app["securityContext"] = json!({
        "runAsUser": 1000, "runAsGroup": 3000, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    app["resources"] =
        json!({"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}});
    node.create("l", json!({
        "containers": [app.clone()], "restartPolicy": "Never", "securityContext": {"supplementalGroups": [4000]},
    }));
    through(&node, "l", "app", 0).await;
    let pod = node.until("l", "ended", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(phase(&pod), "Succeeded", "{pod:#}");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    if let Some(fake) = &node.fake {
        let linux = fake.container_config("app").unwrap().linux.unwrap();
        let resources = linux.resources.unwrap();
        assert_eq!(
            (resources.cpu_quota, resources.cpu_shares, resources.memory_limit_in_bytes),
            (20_000, 102, 64 << 20)
        );
        let security = linux.security_context.unwrap();
        assert_eq!(security.run_as_user, Some(v1::Int64Value { value: 1000 }));
        assert!(security.no_new_privs && security.readonly_rootfs);
    }
    app["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 0});
    node.create("root", json!({"containers": [app]}));
    let pod = node
        .until("root", "refused", |pod| {
            container(pod, "app")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let message = &container(&pod, "app")["state"]["waiting"]["message"];
    assert_eq!(*message, "container has runAsNonRoot and image will run as root");
    for name in ["l", "root"] {
        node.delete(name, 1);
        node.until_gone(name).await;
        node.until_no_trace(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_runs_out() {
    let node = Node::start();
    if node.fake.is_some() {
        println!("SKIPPED: needs a real runtime");
        return;
    }
    let mut app = look("head -c 100m /dev/zero | tail | sleep 5");
    app["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.create("oom", json!({"containers": [app], "restartPolicy": "Never"}));
    let pod = node.until("oom", "ended", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(container(&pod, "app")["state"]["terminated"]["reason"], "OOMKilled", "{pod:#}");
    node.delete("oom", 0);
    node.until_gone("oom").await;
    node.until_no_trace("oom").await;
}
