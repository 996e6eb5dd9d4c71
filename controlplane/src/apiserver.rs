//! Puts the API server together in start-up order: directory, socket, keys, store, engine, front, bootstrap.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pagurus_controlplane_apiserver::admission::Chain;
use pagurus_controlplane_apiserver::authz::Authorizer;
use pagurus_controlplane_apiserver::bootstrap::{Bootstrap, Settings};
use pagurus_controlplane_apiserver::crd::Definitions;
use pagurus_controlplane_apiserver::engine::{Engine, EngineOptions};
use pagurus_controlplane_apiserver::engine_objects::EngineObjects;
use pagurus_controlplane_apiserver::flow;
use pagurus_controlplane_apiserver::health::{Health, Hook, Scope};
use pagurus_controlplane_apiserver::listen::{self, Tls};
use pagurus_controlplane_apiserver::objects::Objects;
use pagurus_controlplane_apiserver::proxy::Proxy;
use pagurus_controlplane_apiserver::server::{Parts, Server};
use pagurus_controlplane_apiserver::special::Specials;
use pagurus_controlplane_apiserver::token::Tokens;
use pagurus_controlplane_store::{Store, embedded};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::ApiserverConfig;
use crate::data_dir::DataDir;
use crate::kubeconfig;
use crate::pki::{self, Pki};
use crate::sockets;

/// What is done before anything runs, and can fail with a word to the user.
pub struct Prepared {
    config: ApiserverConfig,
    data_dir: DataDir,
    listeners: Vec<TcpListener>,
    port: u16,
    pki: Pki,
}

/// A running API server.
pub struct Running {
    /// Answers requests.
    pub server: Arc<Server>,
    /// The CA of the cluster, PEM.
    pub ca: String,
    /// Its key, PEM.
    pub ca_key: String,
    /// Done when the components have their roles.
    pub roles: Hook,
    engine: Arc<Engine>,
    data_dir: DataDir,
}

/// Takes directory and port, and makes keys and certificates.
pub fn prepare(config: ApiserverConfig) -> Result<Prepared> {
    // The socket first: if the port is taken, no directory is made.
    let mut listeners = vec![sockets::bind(config.bind)?];
    listeners.extend(sockets::inherited()?);
    let port = listeners[0].local_addr().context("cannot ask for the socket's address")?.port();
    let data_dir = DataDir::open(&config.data_dir)?;
    let made = keys(&config, data_dir.path(), port);
    let (data_dir, pki) = data_dir.or_undo(made)?;
    Ok(Prepared { config, data_dir, listeners, port, pki })
}

/// Keys, certificates and the administrator's kubeconfig.
fn keys(config: &ApiserverConfig, directory: &Path, port: u16) -> Result<Pki> {
    let names =
        pki::serving_names(config.advertise, config.bind.ip(), &config.service_addresses(), &hostname());
    let pki = Pki::load_or_make(directory, &names)?;
    let host = if config.bind.ip().is_unspecified() { config.advertise } else { config.bind.ip() };
    kubeconfig::write_admin(directory, &format!("https://{}", std::net::SocketAddr::new(host, port)))?;
    Ok(pki)
}

/// Starts serving. A task that fails tells so on `faults`.
pub async fn start(
    prepared: Prepared,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    faults: &mpsc::Sender<anyhow::Error>,
) -> Result<Running> {
    let Prepared { config, data_dir, listeners, port, pki } = prepared;
    let path = data_dir.path().join("store");
    let kept = store_options(config.history, config.history_changes);
    let opened = tokio::task::spawn_blocking(move || embedded::Store::open(path, kept));
    let store = Arc::new(opened.await.context("opening the store was interrupted")??);
    tasks.spawn(watch_over(store.clone(), cancel.clone(), faults.clone()));
    let store: Arc<dyn Store> = store;
    let options = EngineOptions {
        service_cluster_ip_ranges: config.service_ranges.clone(),
        service_node_ports: config.node_ports.clone(),
        allow_privileged: config.allow_privileged,
        ..EngineOptions::default()
    };
    let engine =
        Engine::start(store, options, cancel.clone()).await.context("cannot load the stored objects")?;
    let objects: Arc<dyn Objects> = Arc::new(EngineObjects::new(&engine));
    let authorizer = Arc::new(Authorizer::new(objects.clone()));
    let tokens =
        Arc::new(Tokens::new(&pki.service_account_key, &pki.service_account_public_key, objects.clone())?);
    engine.set_admission(Chain::standard(&objects, &authorizer));
    let definitions = Definitions::start(engine.clone(), objects.clone())
        .await
        .context("cannot load the custom resources")?;
    tasks.spawn(definitions.run(cancel.clone()));
    engine.set_special(Arc::new(Specials {
        engine: Arc::downgrade(&engine),
        objects,
        authorizer: authorizer.clone(),
        tokens: tokens.clone(),
        proxy: Proxy::new(
            &pki.kubelet_client.certificate,
            &pki.kubelet_client.key,
            tasks.clone(),
            cancel.clone(),
        )?,
    }));
    let mut health = health(&engine, cancel);
    let settings = Settings {
        service_ranges: config.service_ranges,
        advertise: config.advertise,
        port,
        client_ca: pki.ca.clone(),
        front_proxy_ca: pki.front_proxy_ca,
    };
    let bootstrap = Bootstrap::new(engine.clone(), settings, &mut health);
    let address = std::net::SocketAddr::new(config.advertise, port).to_string();
    let server = Server::new(Parts { engine: engine.clone(), authorizer, tokens, health, address });
    let tls = Arc::new(Tls::new(&pki.serving.certificate, &pki.serving.key, &pki.ca)?);
    for listener in listeners {
        let shown = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
        info!(address = shown, "serving the API");
        let serving = listen::serve(server.clone(), listener, tls.clone(), cancel.clone());
        let faults = faults.clone();
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                // The receiver is gone only when the process ends anyway.
                let _ = faults.send(error).await;
            }
        });
    }
    let roles = bootstrap.roles();
    tasks.spawn(bootstrap.run(cancel.clone()));
    tasks.spawn(flow::keep_statuses(server.clone(), engine.clone(), cancel.clone()));
    Ok(Running { server, ca: pki.ca, ca_key: pki.ca_key, roles, engine, data_dir })
}

/// What is kept for so long, at most so many changes.
fn store_options(history: Option<Duration>, max_history: usize) -> embedded::Options {
    let usual = embedded::Options::default();
    // Old history is looked for often enough that little is kept beyond its time.
    let tick = history.map_or(usual.tick, |history| usual.tick.min(history / 4));
    embedded::Options { history, max_history, tick, ..usual }
}

/// A store that can no longer write ends the process: after a new start memory and disk agree again.
async fn watch_over(
    store: Arc<embedded::Store>,
    cancel: CancellationToken,
    faults: mpsc::Sender<anyhow::Error>,
) {
    tokio::select! {
        () = cancel.cancelled() => {}
        // The receiver is gone only when the process ends anyway.
        error = store.failed() => drop(faults.send(error.into()).await),
    }
}

impl Running {
    /// Waits for what the engine has begun, and gives the directory back.
    pub async fn end(self, patience: Duration) {
        let Self { server, engine, data_dir, .. } = self;
        drop(server);
        let _ = tokio::time::timeout(patience, engine.ended()).await;
        drop(engine);
        drop(data_dir);
    }
}

fn health(engine: &Arc<Engine>, cancel: &CancellationToken) -> Health {
    let mut health = Health::default();
    health.check("ping", Scope::All, || std::future::ready(Ok(())));
    health.check("log", Scope::All, || std::future::ready(Ok(())));
    let store = engine.store().clone();
    health.check("etcd", Scope::All, move || {
        let store = store.clone();
        async move { store.revision().await.map(|_| ()).map_err(|error| error.to_string()) }
    });
    // The engine is there only when its caches are loaded.
    health.check("informer-sync", Scope::Ready, || std::future::ready(Ok(())));
    let cancel = cancel.clone();
    health.check("shutdown", Scope::Ready, move || {
        let ending = cancel.is_cancelled();
        std::future::ready(if ending { Err("process is shutting down".to_owned()) } else { Ok(()) })
    });
    health
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
