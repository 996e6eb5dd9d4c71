//! VERSION: the versions of the specification we speak.

use serde_json::Value;

use crate::request::Request;
use crate::spec;

pub(super) fn run(request: &Request) -> Value {
    spec::versions(&request.version)
}
