//! A conversion webhook of a test's own: TLS on loopback, and the conversion that the test gives it. It takes each review that it is
//! asked for.
//!
//! Must not know: the kinds that it converts.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Makes an object one of the version that is wanted (`group/version`); `apiVersion` is set afterwards.
pub type Convert = fn(&mut Value, &str);

/// A webhook that answers until the runtime that it was started on ends.
#[derive(Debug)]
pub struct ConversionWebhook {
    port: u16,
    bundle: k8s_openapi::ByteString,
    broken: Arc<AtomicBool>,
}

impl ConversionWebhook {
    /// Starts it.
    ///
    /// # Errors
    /// No key can be made, or no port is free.
    pub async fn start(convert: Convert) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let broken = Arc::new(AtomicBool::new(false));
        let fails = broken.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), convert, fails.clone()));
            }
        });
        Ok(Self { port, bundle: k8s_openapi::ByteString(made.cert.pem().into_bytes()), broken })
    }

    /// What a definition says of it, in `spec.conversion`.
    ///
    /// # Errors
    /// Never: a text is JSON.
    pub fn conversion(&self) -> Result<Value> {
        Ok(json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
            "url": format!("https://127.0.0.1:{}/convert", self.port), "caBundle": serde_json::to_value(&self.bundle)?}}}))
    }

    /// From now on it says of each review that it failed, with the message `not today`.
    pub fn fail(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, convert: Convert, broken: Arc<AtomicBool>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let broken = broken.load(Ordering::Relaxed);
        async move {
            let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let review = serde_json::from_slice(&body).unwrap_or_default();
            let answer = answer(&review, convert, broken);
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    });
    // A client that goes away ends its connection.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

fn answer(review: &Value, convert: Convert, broken: bool) -> Value {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap_or_default();
    let mut objects = review["request"]["objects"].as_array().cloned().unwrap_or_default();
    for object in &mut objects {
        convert(object, wanted);
        object["apiVersion"] = wanted.into();
    }
    let result = match broken {
        true => json!({"status": "Failure", "message": "not today"}),
        false => json!({"status": "Success"}),
    };
    let response = json!({"uid": review["request"]["uid"], "result": result, "convertedObjects": objects});
    json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})
}
