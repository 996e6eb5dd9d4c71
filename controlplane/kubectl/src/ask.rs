//! Requests to the API server. It must not know what their answers mean.

use anyhow::{Context as _, Result, bail};
use http::Request;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::args::Args;

/// The form of discovery that tells everything in two requests.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The API server of the context.
pub struct Server {
    client: kube::Client,
    namespace: String,
}

impl Server {
    /// A client as the flags and the environment say.
    pub async fn connect(args: &Args) -> Result<Self> {
        let file = match &args.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        }
        .context("no usable kubeconfig")?;
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(file, &options).await.context("the kubeconfig is not usable")?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: kube::Client::try_from(config)?, namespace })
    }

    /// The namespace of namespaced objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the server serves: the group discoveries of the core group and of all others.
    pub async fn discovery(&self) -> Result<[Value; 2]> {
        Ok([self.get("/api", DISCOVERY).await?, self.get("/apis", DISCOVERY).await?])
    }

    /// A page of the history of the object at a path.
    pub async fn history(&self, object: &str, query: &str) -> Result<Value> {
        let answer = self.get(&format!("{object}?view=history&{query}"), "application/json").await?;
        if answer["kind"] != "ObjectHistory" {
            bail!("this API server keeps no history: it answered with a {}", answer["kind"]);
        }
        Ok(answer)
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Value> {
        let request = Request::get(path).header("accept", accept).body(Vec::new())?;
        match self.client.request(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => bail!("the server says ({}): {}", status.reason, status.message),
            Err(error) => Err(error).context("cannot ask the API server"),
        }
    }
}
