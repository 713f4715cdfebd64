"""Pictures that every notebook shares."""
