package topics_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/linttest"
	"github.com/banyan-shop/banyan/lint/topics"
)

func TestTopics(t *testing.T) { linttest.Run(t, topics.Analyzer, "shop/modules/...", "shop/api/...") }
