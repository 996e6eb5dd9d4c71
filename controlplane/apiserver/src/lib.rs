//! The API server: one object engine for every kind.
//!
//! A request passes these steps in this order: `listen` (bytes to a request), `authn` (who), `request` (what),
//! `authz` (may they), then either one of the front's own answers (`discovery`, `openapi`, `health`, `metrics`,
//! `reviews`, `token`, `proxy`) or `engine`, which runs `admission` and the `verbs` on objects.
//! It must not know any kind outside `resources`, `admission` plugins and `bootstrap`.

pub mod registry;
pub mod request;

pub mod objects;

pub mod authn;
pub mod authz;
pub mod token;

pub mod admission;

pub mod allocate;
pub mod cache;
pub mod strategy;

pub mod engine;
pub mod response;
pub mod verbs;

pub mod resources;

pub mod crd;

pub mod engine_objects;
pub mod proxy;
pub mod reply;
pub mod special;
pub mod webhook;

pub mod discovery;
pub mod health;
pub mod metrics;
pub mod openapi;
pub mod paths;

pub mod bootstrap;
pub mod flow;
pub mod listen;
pub mod server;
