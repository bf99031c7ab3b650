"""Functions and classes under the names that courses use. Each course has one module or package."""
