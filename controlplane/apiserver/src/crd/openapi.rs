//! What the OpenAPI documents say of custom resources. It must not know the documents' other parts.
