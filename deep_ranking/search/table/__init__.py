"""A collection as a Parquet table, for other programs; and such a table as a collection."""

from deep_ranking.search.table.exporting import ExportedTable, export_table
from deep_ranking.search.table.format import check_table_name
from deep_ranking.search.table.importing import index_table
from deep_ranking.search.table.report import TableReport

__all__ = ["ExportedTable", "TableReport", "check_table_name", "export_table", "index_table"]
