// The parts of the page as links, so that each has an address and the browser's Back works.
import { Link } from "@tanstack/react-router";
import { TABS, TAB_NAMES } from "./tabs";

export function TabBar({ id, attempts }: { id: string; attempts: number }) {
  return (
    <nav className="tabs" aria-label="Parts of the job">
      {TABS.map((tab) => (
        <Link
          key={tab}
          to="/jobs/$id"
          params={{ id }}
          search={tab === "overview" ? {} : { tab }}
          activeOptions={{ exact: true, includeSearch: true }}
          data-testid={`tab-${tab}`}
          resetScroll={false}
        >
          {TAB_NAMES[tab]}
          {tab === "attempts" && attempts > 1 && <span className="count">{attempts}</span>}
        </Link>
      ))}
    </nav>
  );
}
