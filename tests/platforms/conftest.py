"""The contract's assertions explain themselves as those of a test file do."""

import pytest

pytest.register_assert_rewrite("platform_contract", "endpoints_contract", "jobs_contract", "warehouse_contract")
