//! A server under measurement, and what is made on it for that.
//!
//! Must not know: what is measured.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::check;
use crate::client::{Ask, Client};
use crate::drive::{Until, drive};
use crate::kubeconfig::{self, Target};
use crate::objects::{self, NAMESPACE};
use crate::ours::Ours;
use crate::process;

/// How many clients send requests.
pub const CLIENTS: usize = 8;
/// How many pods are there to be read, listed, patched and watched.
pub const STOCK: u64 = 2000;

/// See the module's description.
pub struct Subject {
    /// What notes call it.
    pub name: String,
    /// How it is reached.
    pub target: Target,
    /// Its processes; none if nobody said which they are.
    pub pids: Vec<i32>,
    /// One connection each.
    pub clients: Vec<Client>,
    /// Its process and directory, if we started it.
    pub ours: Option<Ours>,
    /// Resident megabytes before anything was asked of it.
    pub empty: f64,
    stocked: bool,
}

impl Subject {
    /// Our own, with an empty directory.
    ///
    /// # Errors
    /// It does not start.
    pub async fn ours(components: &'static str) -> Result<Self> {
        let (ours, _) = Ours::start(components).await?;
        // What starting has allocated and given back should not be counted.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (target, pids) = (ours.target()?, vec![ours.pid()]);
        Self::begin("ours".to_owned(), target, pids, Some(ours)).await
    }

    /// The one a kubeconfig leads to, with the pids as the command line has them.
    ///
    /// # Errors
    /// It cannot be reached, or the pids are none.
    pub async fn other(kubeconfig: &Path, pids: Option<&str>) -> Result<Self> {
        let pids = pids.unwrap_or_default().split(',').filter(|pid| !pid.is_empty());
        let pids: Vec<i32> =
            pids.map(str::parse).collect::<Result<_, _>>().context("--pids wants numbers")?;
        let name = kubeconfig.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::begin(name, kubeconfig::read(kubeconfig)?, pids, None).await
    }

    async fn begin(name: String, target: Target, pids: Vec<i32>, ours: Option<Ours>) -> Result<Self> {
        let empty = process::resident(&pids)?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::connect(&target).await?);
        }
        let mut subject = Self { name, target, pids, clients, ours, empty, stocked: false };
        subject.namespace(NAMESPACE).await?;
        Ok(subject)
    }

    /// A client for what is not measured.
    pub fn client(&self) -> Client {
        self.clients[0].clone()
    }

    /// Makes a namespace in which pods can be made; one that is there will do.
    async fn namespace(&mut self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        for (path, object) in [("/api/v1/namespaces", namespace), (accounts.as_str(), account)] {
            let (code, body) = self.client().call(Ask::post(path, objects::body(&object))).await?;
            if code != 201 && code != 409 {
                bail!("{}: POST {path}: {code}: {}", self.name, String::from_utf8_lossy(&body));
            }
        }
        Ok(())
    }

    /// Makes the pods that are read, listed, patched and watched, unless they are there already.
    ///
    /// # Errors
    /// One cannot be made.
    pub async fn stock(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.stocked, true) {
            drive(&self.clients, &self.pids, Until::Count(STOCK), 0, |mut client, number| async move {
                let name = stock_name(number);
                let ask = Ask::post(objects::collection("pods"), objects::body(&objects::pod(&name)));
                check::created(&client.expect(201, ask).await?, "Pod", &name)
            })
            .await?;
        }
        Ok(())
    }

    /// Removes all objects of a kind whose label `app` is not that of the stock.
    ///
    /// # Errors
    /// The server does not.
    pub async fn clear(&self, plural: &str, selector: &str) -> Result<()> {
        let path = format!("{}?gracePeriodSeconds=0&{selector}", objects::collection(plural));
        self.client().expect(200, Ask::delete(path)).await.map(drop)
    }

    /// Takes what was made away from a server that is not ours; ours ends, and its directory goes.
    ///
    /// # Errors
    /// The server does not let go of it.
    pub async fn leave(&mut self) -> Result<()> {
        if self.ours.is_some() {
            return Ok(());
        }
        self.clear("pods", "").await?;
        self.clear("configmaps", "").await?;
        self.client().expect(200, Ask::delete(format!("/api/v1/namespaces/{NAMESPACE}"))).await.map(drop)
    }
}

/// The name of a pod of the stock.
pub fn stock_name(number: u64) -> String {
    format!("frontend-6d4b75cb6d-{:05}", number % STOCK)
}
