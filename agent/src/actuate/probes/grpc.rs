//! The gRPC health protocol (grpc.health.v1): one question, one answer, without TLS. It must not know probes' thresholds.

use std::time::Duration;

use pagurus_agent_core::pods::probes::Outcome;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::http::{authority, source_of};

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn name(value: i32) -> String {
        match Self::try_from(value) {
            Ok(Self::Unknown) => "UNKNOWN".to_owned(),
            Ok(Self::Serving) => "SERVING".to_owned(),
            Ok(Self::NotServing) => "NOT_SERVING".to_owned(),
            Ok(Self::ServiceUnknown) => "SERVICE_UNKNOWN".to_owned(),
            Err(_) => value.to_string(),
        }
    }
}

/// Asks whether a service is served; the empty name asks about the whole server.
pub(super) async fn check(host: &str, port: u16, service: &str, limit: Duration) -> (Outcome, String) {
    let address = authority(host, port);
    match tokio::time::timeout(limit, ask(&address, service)).await {
        Err(_) => (
            Outcome::Failure,
            format!("timeout: failed to connect service {address:?} within {}s", limit.as_secs()),
        ),
        Ok(Err(problem)) => {
            (Outcome::Failure, format!("error: failed to connect service {address:?}: {problem}"))
        }
        Ok(Ok(answer)) => judge(answer),
    }
}

fn judge(answer: Result<HealthCheckResponse, Status>) -> (Outcome, String) {
    match answer {
        Ok(answer) if answer.status == ServingStatus::Serving as i32 => (Outcome::Success, String::new()),
        Ok(answer) => {
            let status = ServingStatus::name(answer.status);
            (Outcome::Failure, format!("service unhealthy (responded with {status:?})"))
        }
        Err(status) if status.code() == Code::Unimplemented => (
            Outcome::Failure,
            format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ),
        ),
        Err(status) => (Outcome::Failure, format!("error: health rpc probe failed: {}", status.message())),
    }
}

/// The outer error: no connection.
async fn ask(address: &str, service: &str) -> Result<Result<HealthCheckResponse, Status>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent("kube-probe/1.37"))
        .map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| source_of(&error))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    Ok(client.unary(request, path, codec).await.map(tonic::Response::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |answer: Result<i32, Status>, outcome: Outcome, text: &str| {
            let (got, message) = judge(answer.map(|status| HealthCheckResponse { status }));
            assert_eq!((got, message.contains(text)), (outcome, true), "{message}");
        };
        check(Ok(1), Outcome::Success, "");
        check(Ok(2), Outcome::Failure, "\"NOT_SERVING\"");
        check(Ok(9), Outcome::Failure, "\"9\"");
        check(Err(Status::unimplemented("no such method")), Outcome::Failure, "does not implement");
        check(Err(Status::not_found("unknown service")), Outcome::Failure, "unknown service");
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let (outcome, message) = check("127.0.0.1", port, "", Duration::from_secs(10)).await;
        assert_eq!(outcome, Outcome::Failure);
        assert!(message.contains("failed to connect service"), "{message}");
    }

    /// A gRPC server of one connection that answers every question with this status.
    async fn serve(status: ServingStatus) -> u16 {
        use http_body_util::{BodyExt as _, Full};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service = hyper::service::service_fn(
                move |request: hyper::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let question = request.into_body().collect().await.expect("a question").to_bytes();
                    assert_eq!(question[5..], *b"\x0a\x03web", "the service's name in field 1");
                    let trailers = http::HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        http::HeaderValue::from_static("0"),
                    )]);
                    // No compression, two bytes: field 1 is the status.
                    let answer = vec![0, 0, 0, 0, 2, 8, status as u8];
                    let body = Full::new(bytes::Bytes::from(answer))
                        .with_trailers(std::future::ready(Some(Ok::<_, std::convert::Infallible>(trailers))));
                    hyper::Response::builder().header("content-type", "application/grpc").body(body)
                },
            );
            let executor = hyper_util::rt::TokioExecutor::new();
            let connection = hyper::server::conn::http2::Builder::new(executor);
            let _ = connection.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        });
        port
    }

    #[tokio::test]
    async fn asks_the_health_service() {
        let limit = Duration::from_secs(10);
        let port = serve(ServingStatus::Serving).await;
        assert_eq!(check("127.0.0.1", port, "web", limit).await, (Outcome::Success, String::new()));
        let port = serve(ServingStatus::NotServing).await;
        let (outcome, message) = check("127.0.0.1", port, "web", limit).await;
        assert_eq!(
            (outcome, message.as_str()),
            (Outcome::Failure, "service unhealthy (responded with \"NOT_SERVING\")")
        );
    }
}
