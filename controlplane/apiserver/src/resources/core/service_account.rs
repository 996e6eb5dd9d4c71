//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::strategy::Strategy;

/// The strategy of `serviceaccounts`.
pub(crate) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), cells::age(object, now)]
    }
}
