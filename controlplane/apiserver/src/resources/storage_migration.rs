//! StorageVersionMigrations.

use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::key::qualified;

use super::cells;
use super::fields::Fields;
use super::plain::Plain;

/// The strategy of `storageversionmigrations`.
pub(crate) static MIGRATIONS: Plain = Plain {
    cells: |object, _| {
        let resource = object.at("spec.resource");
        let state =
            ["Succeeded", "Failed", "Running"].into_iter().find(|kind| conditions::is_true(object, kind));
        vec![
            cells::name(object),
            qualified(resource.text("resource"), resource.text("group")).into(),
            state.unwrap_or("Pending").into(),
        ]
    },
    ..Plain::NEW
};
